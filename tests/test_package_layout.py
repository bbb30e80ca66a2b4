"The plan of the house: which folder may import from which, no star across folders, no stale module, no long line."
import ast, re
from pathlib import Path
import pytest

top = Path(__file__).parent.parent
package = top/'imgstudy'
modules = {p.relative_to(package).with_suffix('').as_posix().replace('/', '.'): p for p in sorted(package.rglob('*.py'))
           if p.name not in ('__init__.py', '_modidx.py')}
lowest = {'core', 'runs', 'references', 'html', 'own_weights', 'panels', 'moved', 'labels', 'show'}  # at the root, below every folder
may_import = {  # folder, or module at the root -> folders it may import from, besides those modules
    'data': set(), 'models': set(), 'records': {'data', 'models'}, 'training': {'data', 'models', 'records'},
    'stats': {'data', 'models', 'records', 'training'}, 'study': {'data', 'models', 'records', 'training', 'stats'},
    'sweep': {'data', 'models', 'records', 'training', 'stats', 'study'},
    'report': {'data', 'models', 'records', 'training', 'stats', 'study', 'sweep', 'predict', 'show', 'light_tables'},
    'predict': {'data', 'models', 'records', 'submission', 'light_tables'}, 'submission': {'data', 'models', 'records', 'predict'}}
rooms = set(may_import) - {'predict', 'submission'}


def place(module):
    "The folder of a module; of one at the root, its own name."
    return module.split('.')[0]


def imports(module):
    "Pairs of a module of this package that `module` imports from, and the names."
    for node in ast.walk(ast.parse(modules[module].read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level: continue
        base = [*module.split('.')[:-1]][:len(module.split('.')) - node.level] if node.level > 1 else module.split('.')[:-1]
        named = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
        names = [a.name for a in node.names]
        if named in modules: yield named, names
        else: yield from ((f'{named}.{n}'.strip('.'), ['*module*']) for n in names) # `from ..models import zoo`


@pytest.mark.parametrize('module', [m for m in modules if place(m) in may_import])
def test_a_folder_imports_only_from_those_before_it(module):
    here = place(module)
    wrong = [m for m, _ in imports(module) if place(m) not in {here, *lowest, *may_import[here]}]
    assert not wrong, f'{module} imports {wrong}'


@pytest.mark.parametrize('module', sorted(lowest))
def test_the_root_is_below_all(module):
    assert not [m for m, _ in imports(module) if m not in lowest]


@pytest.mark.parametrize('module', [m for m in modules if m != 'all'])
def test_stars_stay_within_a_folder(module):
    same = lambda m: m.rpartition('.')[0] == module.rpartition('.')[0]
    assert not [m for m, names in imports(module) if '*' in names and not same(m)]
    others = re.findall(r'^from (?!\.)(\S+) import \*', modules[module].read_text(), re.M)
    assert not [o for o in others if not o.startswith(('fastai', 'fastcore'))]


def test_every_module_names_a_notebook_that_is_there():
    source = {m: re.search(r'File to edit: (?:\.\./)+nbs/(\S+?)\.?$', p.read_text(), re.M) for m, p in modules.items()}
    assert not [m for m, found in source.items() if not found or not (top/'nbs'/found[1]).exists()]


@pytest.mark.parametrize('module', modules)
def test_lines_are_at_most_120_wide(module):
    "But for what nbdev writes."
    text = re.sub(r'^__all__ = \[.*?\]\n', '', modules[module].read_text(), count=1, flags=re.S | re.M)
    long = [f'{i}: {len(l)}' for i, l in enumerate(text.splitlines(), 1) if len(l) > 120]
    assert not long, long


@pytest.mark.parametrize('module', modules)
def test_no_module_is_too_long(module):
    assert len(modules[module].read_text().splitlines()) <= 450, 'split the notebook: one idea each'


def test_no_two_notebooks_share_a_number():
    "The number is the reading order."
    numbers = [p.name.split('_')[0] for p in (top/'nbs').glob('[0-9]*.ipynb')]
    assert len(numbers) == len(set(numbers)), sorted(n for n in set(numbers) if numbers.count(n) > 1)
