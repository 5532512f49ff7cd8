"""Plots of scan orders, of training runs, of analyses and of comparisons."""
