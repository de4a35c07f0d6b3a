"""The stages: each takes artifacts and returns one. In the order of the data:

load_data, train (warm_up), score_pool, select_questions, query_teacher, check_rationales,
train (train_assistant), annotate, train (instruct_student, train_student), predict, evaluate.

A stage's module also has its settings and the function that builds them from a recipe.
"""
