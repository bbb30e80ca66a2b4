"The library is what the notebooks export, and the notebooks are clean: checked on a copy, nothing here is changed."
import filecmp, os, shutil, subprocess, sys
from pathlib import Path
import pytest

top = Path(__file__).parent.parent


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    "A copy of the sources in which nbdev_export and nbdev_clean have been run."
    to = tmp_path_factory.mktemp('copy')/'imgstudy'
    ignore = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
    for folder in ('nbs', 'imgstudy'): shutil.copytree(top/folder, to/folder, ignore=ignore)
    for name in ('settings.ini', 'setup.py', 'pyproject.toml', 'README.md'): shutil.copy(top/name, to/name)
    env = {**os.environ, 'PYTHONPATH': str(to)}
    for command in ('nbdev_export', 'nbdev_clean'):
        subprocess.run([str(Path(sys.executable).parent/command)], cwd=to, check=True, env=env, capture_output=True)
    return to


def differing(a, b, pattern):
    names = {p.relative_to(d).as_posix() for d in (a, b) for p in d.rglob(pattern) if '.ipynb_checkpoints' not in p.parts}
    return sorted(n for n in names if not ((a/n).exists() and (b/n).exists() and filecmp.cmp(a/n, b/n, shallow=False)))


def test_library_is_exported(copy):
    assert differing(top/'imgstudy', copy/'imgstudy', '*.py') == [], 'run nbdev_export and commit imgstudy/'


def test_notebooks_are_clean(copy):
    assert differing(top/'nbs', copy/'nbs', '*.ipynb') == [], 'run nbdev_clean and commit nbs/'
