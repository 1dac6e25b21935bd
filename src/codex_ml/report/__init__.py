"""Write one HTML page and a model card for people, from the numbers that the other stages wrote.

`facts` reads the inputs, `sentences` and the tables phrase them, `page` and `card` render them. The modules
`evaluation_*` do the same for the evaluation. Used by: stages/report.py, `codex-ml compare --html`.
"""
