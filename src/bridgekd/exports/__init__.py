"""A run's model as a folder to share: the model, its rows, and a card for each.

`cards` and `rows` feed `folder`, which writes everything beside the requested folder and renames it
when it is complete.
"""

from bridgekd.exports.folder import ExportResult, export_arm

__all__ = ["ExportResult", "export_arm"]
