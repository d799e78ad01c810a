"""What a study is: its file, its candidates and their outcomes, its objective, its errors.

Values only. Nothing here imports torch, Ray or Optuna.
"""
