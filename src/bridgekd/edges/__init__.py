"""One outside thing each: the disk, the ledger, the teacher, data files, recipes."""
