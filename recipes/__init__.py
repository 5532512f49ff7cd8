"""Published networks as recipe files, and the scripts that train and evaluate them."""
