"""The notebooks with explorers, opened in JupyterLab as they are stored, and run."""

import contextlib
import symtable

import lab
import nbformat
import pytest

# A notebook, the parameters that make it quick, the explorers that it shows. `make test` runs the
# whole of each notebook with its own parameters, and each explorer has browser tests of its own:
# what is tested here is that a notebook shows them.
COURSE = {
    "00_start_here": ({}, [".akd-inheritance", ".akd-prompts"]),
}
UMAP = '''
class UMAP:
    """Stands in for umap's, whose import and first map take half a minute."""

    def __init__(self, **settings):
        pass

    def fit_transform(self, points):
        return points[:, :2]
'''


def names(code: str) -> tuple[set[str], set[str]]:
    """The global names that a cell sets and those that it uses."""
    tables = [symtable.symtable(code, "cell", "exec")]
    for table in tables:
        tables += table.get_children()
    sets = {s.get_name() for s in tables[0].get_symbols() if s.is_assigned() or s.is_imported()}
    inner = [s for table in tables[1:] for s in table.get_symbols() if s.is_global()]
    used = [s for s in (*tables[0].get_symbols(), *inner) if s.is_referenced()]
    return sets, {s.get_name() for s in used}


def needed(cells: list, shows: str) -> list[int]:
    """The places of the code cells that use `shows`, and of those that set what they use."""
    places, wanted = [], set()
    for place, cell in reversed(list(enumerate(cells))):
        if cell.cell_type != "code":
            continue
        sets, used = names(cell.source)
        if shows in cell.source or sets & wanted:
            places.append(place)
            wanted = wanted - sets | used
    return places[::-1]


def test_a_cell_needs_the_cells_that_set_what_it_uses():
    sources = ["import a", "b = 1", "b = 2", "c = [b for b in a]", "d = 3", "def f(): return b, d"]
    cells = [nbformat.v4.new_code_cell(code) for code in [*sources, "e = 0", "show(c, f())"]]
    assert needed(cells, "show(") == [0, 2, 3, 4, 5, 7]


@pytest.fixture
def course(browser, shared_cache):
    """A folder of JupyterLab with a place for notebooks, their features and a stand-in for umap."""
    folder = browser.root / "notebooks"
    if not folder.exists():
        folder.mkdir()
        with contextlib.suppress(OSError):  # not allowed on Windows
            (browser.root / ".cache").symlink_to(shared_cache)
        (folder / "umap.py").write_text(UMAP)
    return folder


@pytest.mark.parametrize("name", COURSE)
def test_a_notebook_of_the_course_is_opened_and_run(browser, course, name):
    """Up to its explorers; the other cells show their stored outputs, whose page must not fail."""
    changes, explorers = COURSE[name]
    notebook = nbformat.read(lab.ROOT / "notebooks" / f"{name}.ipynb", 4)
    notebook.cells[1].source += "".join(f"\n{key} = {value!r}" for key, value in changes.items())
    nbformat.write(notebook, course / f"{name}.ipynb")
    opened = browser(f"notebooks/{name}.ipynb")
    for place in needed(notebook.cells, "akd.widgets."):
        opened.run(place, 300)
    assert opened.page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for explorer in explorers:
        shown = opened.page.locator(explorer).first
        shown.scroll_into_view_if_needed()
        shown.wait_for(state="visible")
        opened.screenshot(f"{name[:2]}{explorer.replace('.akd', '')}")
    opened.close()
