"""The way to the teacher: buying in rank order, and the lines it is done over."""
