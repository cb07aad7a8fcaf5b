"""The notebooks with explorers, opened and run in JupyterLab."""

import lab
import nbformat
import pytest

COURSE = {  # smaller than by default, where a notebook can be: what is tested here is its face
    "02_simplex_and_umap": ({"most": 300}, [".activekd-simplex"]),
    "03_selection_strategies": ({"seeds": [0]}, [".activekd-stepper"]),
    "07_label_it_yourself": ({}, [".akd-labeller"]),
    "08_your_images_and_clip": (
        {"images_per_class": 6},
        [".activekd-prompts", ".activekd-simplex"],
    ),
}


@pytest.mark.parametrize("name", COURSE)
def test_a_notebook_of_the_course_is_opened_and_run(browser, name):
    changes, explorers = COURSE[name]
    notebook = nbformat.read(lab.ROOT / "notebooks" / f"{name}.ipynb", 4)
    notebook.cells[1].source += "".join(f"\n{key} = {value!r}" for key, value in changes.items())
    folder = browser.root / "notebooks"
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    opened = browser(f"notebooks/{name}.ipynb")
    opened.run_all()
    assert opened.page.locator("[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for explorer in explorers:
        shown = opened.page.locator(explorer).first
        shown.scroll_into_view_if_needed()
        shown.wait_for(state="visible")
        opened.screenshot(f"{name[:2]}{explorer.replace('.activekd', '')}")
    opened.close()
