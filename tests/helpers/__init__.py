"""What several tests share: imported as ``from tests.helpers.training import train``."""
