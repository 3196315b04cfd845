"""The Streamlit workbench: why this campaign for this user. Thin pages around `recs`.

`lookup`, `words`, `markup` and `charts` know no Streamlit: a notebook in the checkout may use them as they are.
"""
