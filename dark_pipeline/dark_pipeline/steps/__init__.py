"""Older path of the dark pipeline's steps; everything lives two folders up."""
