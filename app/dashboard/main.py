"""The workbench's entry: `streamlit run app/dashboard/main.py`, which `recs dashboard` does."""

from __future__ import annotations

import streamlit as st

from app.dashboard import quality, user
from app.dashboard.style import STYLE

st.set_page_config(page_title="Likeminded", layout="wide", initial_sidebar_state="collapsed")
st.html(STYLE)
page = st.navigation(
    [
        st.Page(user.page, title="User", url_path="user", default=True),
        st.Page(quality.page, title="Quality", url_path="quality"),
    ],
    position="top",
)
page.run()
