"Commands and snippets of README and docs: each command is understood, and what is shown for one's own photographs runs in its order."
import contextlib, io, re, shlex, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
import matplotlib.pyplot as plt
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.runs import run_id
from imgstudy.records.record import read_records
from imgstudy.study.create import create_run
from imgstudy.training.train import train

top = Path(__file__).parent.parent
pages = [top/'README.md', *sorted((top/'docs').glob('*.md'))]
text = {p.name: p.read_text(encoding='utf-8') for p in pages}


def blocks(page, language=None):
    "The blocks of code of a page, in any language or in one."
    found, inside = [], None
    for line in text[page].splitlines():
        fence = re.match('```(.*)', line)
        if fence and inside is None: inside = fence[1].strip(), []
        elif fence: found.append(inside); inside = None
        elif inside is not None: inside[1].append(line)
    return ['\n'.join(lines) for kind, lines in found if language in (None, kind)]


def test_blocks_are_closed(): assert all(len(re.findall('^```', t, flags=re.M)) % 2 == 0 for t in text.values())


def commands():
    "(page, command line) of each call of imgstudy, without the prompt."
    lines = [(page, line.strip().removeprefix('$ ')) for page in text for block in blocks(page) for line in block.splitlines()]
    return [(page, line) for page, line in lines if line.startswith('imgstudy ')]


def words(line): return shlex.split(line, comments=True)[1:]


def test_there_are_commands(): assert len(commands()) > 20 and len({page for page, _ in commands()}) >= 3


@pytest.mark.parametrize('page,line', commands())
def test_command_is_understood(page, line):
    name, *rest = words(line)
    assert name in cli.commands and cli.parse(name, rest)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "A home with a folder of three classes of pictures, two new ones, and records of its own."
    home, rng = tmp_path_factory.mktemp('home'), np.random.default_rng(0)
    for k, name in enumerate(('cat', 'dog', 'owl')):
        for i in range(16):
            path = home/('new' if i == 0 else f'photos/{name}')/f'{name}{i}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.normal(60 + 60*k, 20, (40, 40, 3)).clip(0, 255).astype('uint8')).save(path)
    return home


def test_own_photographs_from_training_to_report(photos, monkeypatch, tmp_path):
    "The block of the README, line by line; a small network and few epochs stand in for the default ones."
    monkeypatch.chdir(photos); monkeypatch.setenv('HOME', str(photos)); monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path))
    monkeypatch.setenv('IMGSTUDY_RUNS', str(photos/'runs'))
    block, = [b for b in blocks('README.md', 'sh') if 'imgstudy train' in b]
    smoke = {'train': '--model lenet5 --epochs 2 --size 32', 'compare': '--epochs 1 --size 32 --seeds 1 --no-notebook'}
    small = {'lenet_modern,convnext,efficientnet_lite0': 'lenet5,mlp_s', '--seeds 3': '--seeds 1'}
    for line in [l for l in block.splitlines() if l.startswith('imgstudy')]:
        name, *rest = words(line.replace('$HOME', str(photos)))
        rest = ' '.join(rest)
        for old, new in small.items(): rest = rest.replace(old, new)
        if 'RECORD' in rest: rest = rest.replace('RECORD', read_records(photos/'runs')[0].id)
        with contextlib.redirect_stdout(io.StringIO()): cli.answer([name, *rest.split(), *smoke.get(name, '').split()])
    assert len((photos/'table.csv').read_text().splitlines()) == 4 and len([*(photos/'sorted').rglob('*.jpg')]) == 3
    assert Image.open(photos/'looks.png').width > 100 and (photos/'mine.html').stat().st_size > 10_000


@pytest.mark.parametrize('page', [p for p in text if blocks(p, 'python') and p not in ('clusters.md', 'fastai.md', 'own-study.md')])
def test_python_runs_and_reads_what_make_study_leaves(page, photos, tmp_path, monkeypatch):
    pytest.importorskip('onnxscript', reason="export needs pip install 'imgstudy[onnx]'")
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    record = train(create_run(model='lenet5', dataset='digits', epochs=1, subset=200))
    (tmp_path/'unlabelled').mkdir()
    for path in ('my_photo.jpg', 'unlabelled/one.jpg'): (tmp_path/path).write_bytes((photos/'new/cat0.jpg').read_bytes())
    made = run_id(create_run(model='convnext', dataset='digits'))
    for block in blocks(page, 'python'):
        assert made in block, 'the record that make study leaves'
        exec(compile(block.replace(made, record.id), page, 'exec'), {})
    assert [*tmp_path.glob('*.onnx')]


def test_figures_for_a_paper(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with plt.rc_context():
        for block in blocks('own-study.md', 'python'): exec(compile(block, 'own-study.md', 'exec'), {})
    assert {p.suffix for p in tmp_path.glob('figure.*')} == {'.svg', '.pdf', '.png'}


@pytest.mark.parametrize('fails', [False, True])
def test_the_script_for_a_cluster(fails, tmp_path, monkeypatch):
    "With a scheduler that does each job at once, since there is no cluster here; a unit that fails is a job that fails."
    class Executor:
        def __init__(self, folder): self.n = 0
        def update_parameters(self, **params): assert params['timeout_min'] > 10
        def submit(self, job, *args):
            self.n += 1
            if fails: args = ('no-such-unit', *args[1:])
            try: done.append('failed' if fails and done else job(*args) or 'done')  # one failure is enough
            except subprocess.CalledProcessError: done.append('failed')
            return SimpleNamespace(job_id=str(self.n))
    done = []
    fake = SimpleNamespace(AutoExecutor=Executor, helpers=SimpleNamespace(Checkpointable=object))
    monkeypatch.setitem(sys.modules, 'submitit', fake)
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('PYTHONPATH', str(top))
    (script,) = blocks('clusters.md', 'python')
    for old, new in (("'cifar100_schedules', 'small'", "'cifar100_deeper', 'smoke'"), ('/shared/runs', str(tmp_path/'runs'))):
        assert old in script
        script = script.replace(old, new)
    exec(compile(script, 'clusters.md', 'exec'), {})
    assert done and set(done) == {'failed' if fails else 'done'}
    if fails: return
    assert all(r.outcome == 'finished' for r in read_records(tmp_path/'runs')) and len(read_records(tmp_path/'runs')) >= 2


def test_what_is_shown_for_users_of_fastai_runs(tmp_path, monkeypatch):
    "The blocks of Python on that page, in their order, in a folder of their own."
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in blocks('fastai.md', 'python'): exec(compile(block, 'docs/fastai.md', 'exec'), space)
    plt.close('all')
    assert len(space['history'].rows) == 2 and (space['learn'].path/'digits.pkl').is_file()
