"""Bias pipeline: master bias per temperature, ``bias(T) = a + b T`` per pixel, read noise, synthetic bias."""
