"""A run's model as a folder to share: the model, its rows, and a card for each.

describe (manifests -> a card's facts) and rows (lessons -> files) feed folder, which writes all of
it beside the wanted folder and renames it when it is whole.
"""

from bridgekd.exporting.folder import Exported, export_arm

__all__ = ["Exported", "export_arm"]
