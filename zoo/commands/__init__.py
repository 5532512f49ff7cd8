"""The commands that ``zoo`` has of its own. Each imports what it needs, and no other does."""
