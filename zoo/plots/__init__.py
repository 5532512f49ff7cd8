"""Pictures for people: scan orders and the curves of training runs."""
