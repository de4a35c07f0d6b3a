"""Export a model of a run as a folder to share: the model, its training examples, two cards."""

from bridgekd.exports.folder import ExportResult, export_arm

__all__ = ["ExportResult", "export_arm"]
