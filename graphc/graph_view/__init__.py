"""A graph as a page to look at: before and after each pass, the kernels that it becomes, and their code."""

from graphc.graph_view.page import Page, make_page

__all__ = ["Page", "make_page"]
