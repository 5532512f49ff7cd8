"""How the package is built: its kernel, for this machine or another one, and its wheels."""
