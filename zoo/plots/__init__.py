"""Plots of scan orders and of training runs."""
