"Every notebook of the library tells its story and shows what it exports; none names the machine it ran on."
import json, re
from pathlib import Path
import pytest

top = Path(__file__).parent.parent
notebooks = sorted((top/'nbs').glob('*.ipynb'))
library = [p for p in notebooks if p.name[0].isdigit()]


def cells(path): return [(c['cell_type'], ''.join(c['source']), c.get('outputs', [])) for c in json.loads(path.read_text())['cells']]


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_opens_with_what_and_why(path):
    kind, source, _ = cells(path)[0]
    assert kind == 'markdown' and re.match(r'# .+\n\n> .+\n\n\w', source), 'begin with # title, > summary, and a paragraph'


@pytest.mark.parametrize('path', library, ids=lambda p: p.stem)
def test_shows_and_tests_what_it_exports(path):
    got = cells(path)
    assert any('#| export' in s for _, s, _ in got)
    assert any(re.search(r'\btest_\w+\(', s) for _, s, _ in got), 'no tests'
    assert any(o for _, s, o in got if '#| hide' not in s), 'run it and keep the outputs'


@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_outputs_are_small_and_free_of_paths(path):
    assert path.stat().st_size < 500_000
    outputs = json.dumps([o for *_, o in cells(path)])
    found = re.search(r'(/home/|/root/|/Users/|/tmp/|site-packages|C:\\\\)[^"\\]{0,40}', outputs)
    assert not found, found and found[0]
    assert str(top.parent) + '/' not in outputs
    assert not re.search(r'"output_type": "error"', outputs)
    assert r'\r' not in outputs and not re.search(r'\d%\|', outputs), 'a progress bar: run it with IMGSTUDY_PROGRESS=lines'


def test_run_study_is_a_template():
    "About 15 code cells, literal parameters, no definitions, no cell over 10 lines but the list of parameters."
    raw = json.loads((top/'nbs/run_study.ipynb').read_text())['cells']
    code = [''.join(c['source']) for c in raw if c['cell_type'] == 'code']
    assert 12 <= len(code) <= 18
    assert [c['metadata']['tags'] for c in raw if c['metadata'].get('tags')] == [['parameters']]
    assert not any(re.search(r'^\s*(def|class) ', s, re.M) or 'lambda' in s for s in code)
    assert max(len(s.splitlines()) for s in code[1:]) <= 10
