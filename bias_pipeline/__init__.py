"""Bias pipeline: master biases, and a model of every pixel against temperature."""
