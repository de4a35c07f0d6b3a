"""Read the answer of a text and compare it with the gold answer. Pure: text in, text or bool out.

Every type of answer has one `Grader`, a file of `grading.graders`.
"""
