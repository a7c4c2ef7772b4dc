"""What source files import."""

import ast
import functools


@functools.cache
def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a source text, wherever in it they stand. Expressions hold none and are not read."""
    waiting: list[ast.AST] = [ast.parse(source)]
    for node in waiting:
        children = ast.iter_child_nodes(node)
        waiting += [child for child in children if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case)]
    return [node for node in waiting if isinstance(node, ast.Import | ast.ImportFrom)]
