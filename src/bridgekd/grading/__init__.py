"""What a text answers, and whether that is the gold answer. Pure: text in, text or bool out.

A type of answer has one `Grader`, a file of `grading.graders`.
"""
