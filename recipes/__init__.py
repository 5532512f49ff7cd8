"""Published networks and their training, as recipe files and two scripts."""
