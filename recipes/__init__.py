"""Published networks as recipe files, and the scripts that train and evaluate them."""

import zoo.startup  # noqa: F401 - before the modules of this package import others
