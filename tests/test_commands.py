"The command line: what it answers at once, what it refuses, how its tables look, and one's own photographs from train to predict."
import json, os, pty, re, resource, subprocess, sys
from pathlib import Path
import numpy as np, pytest
from PIL import Image, ImageDraw
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.light_tables import compute_tables, light_table
from imgstudy.runs import make_run, seed_runs
from imgstudy.study.create import create_run
from imgstudy.training.train import train

top = Path(__file__).parent.parent
heavy = 'torch', 'fastai', 'timm', 'pandas', 'matplotlib'
program = f'''
import sys
from imgstudy.cli import main
try: main()
finally:
    found = [m for m in {heavy} if m in sys.modules]
    if found: print('imported', *found, file=sys.stderr)
'''


def imgstudy(*words, **env):
    return subprocess.run([sys.executable, '-c', program, *words], cwd=top, capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH='.') | env, stdin=subprocess.DEVNULL)


at_once = {
    '': 'predict', '--help': 'compare-runs', '--version': 'imgstudy 0.', 'modls': "Did you mean 'models'", 'models': 'lenet5', 'models --json': '"lenet5"',
    'datasets': 'digits', 'studies': 'dog_breeds', 'run --help': '--time-limit', 'train --help': '--seeds', 'run': 'required: STUDY',
    'run dog_breds': "Did you mean 'dog_breeds'", 'run tuned --scale ful': "Did you mean 'full'", 'run tuned --sede 3': "Did you mean '--seeds'",
    'run tuned --jobs two': '--jobs', 'run tuned --time-limit soon': 'is no time', 'status tuned,tund': "Did you mean 'tuned'",
    'collect tuned --scale big': 'no scale', 'compare digits --models lenet6': "Did you mean 'lenet5'", 'compare folder:none': 'There is no folder none',
    'compare digitz': "Did you mean 'digits'", 'compare digits --budget soon': 'is no time', 'audit nothing': 'no dataset', 'features digits --model lenet5': 'no published ImageNet weights',
    'features digits --out t.xlsx': 'end in .csv', 'features digits --from nothing': 'There', 'compare digits --from x': 'imgstudy train DATASET --from RECORD',  'diagnose no-such-run': 'There', 'compare-runs a b': 'There', 'verify --root none': 'no records in',
    'predict no-such-run README.md': 'There', 'predict x no.jpg': 'no file no.jpg', 'explain x README.md --out p.doc': 'end in .png',
    'train digits --model lenet5 --size 8': 'at least 16 pixels', 'train digits --lr -1': '`lr` must be', 'train digits --init file:no.pth': 'no weights file',
    'train digits --tune all --augment flop': "Did you mean 'flip'", 'train ./photos': 'write folder:./photos'}


@pytest.mark.parametrize('words', at_once, ids=lambda w: w or 'nothing')
def test_answers_at_once(words):
    "Without what takes seconds to import; CPU seconds, since the machine may be busy."
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = imgstudy(*words.split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert at_once[words] in done.stdout + done.stderr
    assert 'imported' not in done.stderr and 'Traceback' not in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1


absurd = [dict(lr=1e300), dict(lr=1e-300), dict(wd=1e300), dict(lr_start=1e300), dict(clip=1e-300), dict(bs=10**9), dict(subset=1e-9), dict(epochs=10**12), dict(epochs=100_001), dict(frozen_epochs=10**9), dict(tta=10**6), dict(tta=1001), dict(mixup=1e-300), dict(mixup=1e300),
          dict(cutmix=1e-300), dict(cutmix=9e-4), dict(folds=10**9), dict(bs=10**9, size=4096), dict(bs=10**6, size=1024)]


@pytest.mark.parametrize('params', absurd, ids=str)
def test_values_that_would_never_end_are_refused(params):
    with pytest.raises(StudyError, match='must be from|take at least'): create_run(dataset='digits', model='lenet5', **params)


@pytest.mark.parametrize('words', ['--epochs 1e12', '--epochs 1000000000000', '--tta 1e6', '--mixup 1e-300', '--cutmix 1e-300', '--cutmix 1e9', '--seeds 1000000000',
                                   '--size 4096 --bs 1000000', '--folds 1000000000'])
def test_the_command_refuses_them_at_once(words):
    done = imgstudy('train', 'digits', '--model', 'lenet5', *words.split())
    assert done.returncode == 1 and done.stderr.count('\n') == 1 and done.stderr.startswith('imgstudy: `') or 'Batches of' in done.stderr


@pytest.mark.parametrize('command', ['run tuned', 'compare digits', 'status tuned', 'train digits --model lenet5'])
def test_too_many_seeds(command):
    done = imgstudy(*command.split(), '--seeds', '1000000000')
    assert done.returncode == 1 and 'at most 1,000' in done.stderr and 'imported' not in done.stderr


def test_usual_values_are_none_of_them():
    for params in (dict(epochs=1000), dict(tta=10), dict(mixup=.1), dict(cutmix=1.), dict(folds=10), dict(bs=4096), dict(size=512)):
        create_run(dataset='digits', model='lenet5', **params)
    assert len(seed_runs(make_run(dataset='digits', model='lenet5'), 1000)) == 1000
    with pytest.raises(StudyError, match='at most 1,000'): seed_runs(make_run(dataset='digits', model='lenet5'), 10**9)


def test_kept_tables_are_the_computed_ones():
    computed = compute_tables()
    for name, rows in computed.items(): assert light_table(name) == json.loads(json.dumps(rows)), f'make tables: {name}'
    setup = (top/'setup.py').read_text()
    assert 'tables/*.json' in setup and {p.stem for p in (top/'imgstudy/tables').glob('*.json')} == {*computed}


def on_a_terminal(*words, columns=80):
    "What a command prints on a terminal."
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, '-c', program, *words], cwd=top, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
                               env=os.environ | dict(PYTHONPATH='.', COLUMNS=str(columns), TERM='xterm'))
    os.close(theirs)
    parts = []
    while True:
        try: part = os.read(ours, 65536)
        except OSError: break
        if not part: break
        parts.append(part)
    assert process.wait() == 0
    return b''.join(parts).decode().replace('\r\n', '\n')


@pytest.mark.parametrize('columns', [40, 80, 132])
@pytest.mark.parametrize('name', ['models', 'datasets', 'studies'])
def test_tables_fit_the_terminal(name, columns):
    text = on_a_terminal(name, columns=columns)
    assert max(map(len, text.splitlines())) <= columns and '\t' not in text
    if name == 'models' and columns == 80: assert re.search(r'^convnext_base +224 +87\.6 M +30\.7 GFLOPs', text, re.M)
    if name == 'datasets': assert re.search(r'^digits .*made', text, re.M) or columns == 40
    names = [next(iter(r.values())) for r in light_table(name)]
    squeezed = ''.join(text.split())
    assert columns == 40 or all(n in squeezed for n in names)


def test_piped_tables_are_for_programs():
    for name in ('models', 'datasets', 'studies'):
        lines = imgstudy(name).stdout.splitlines()
        assert len(lines) == len(light_table(name)) + 1 and {line.count('\t') for line in lines} == {lines[0].count('\t')} != {0}
        rows = json.loads(imgstudy(name, '--json').stdout)
        assert [*rows[0]] == lines[0].split('\t')
    row = next(r for r in json.loads(imgstudy('models', '--json').stdout) if r['model'] == 'lenet5')
    assert row['parameters'] == 62006 and row['published'] == .992


def test_data_sets_say_where_they_are(tmp_path):
    (tmp_path/'pets').mkdir()
    rows = {r['name']: r['at_hand'] for r in json.loads(imgstudy('datasets', '--json', IMGSTUDY_DATA=str(tmp_path)).stdout)}
    assert rows['pets'] == str(tmp_path/'pets') and rows['digits_low'] == 'made here' and not rows['stl5']


def test_options_with_underscores_are_still_read():
    assert cli.parse('run', ['all', '--dry_run', '--time_limit=9m'])['time_limit'] == '9m'
    assert cli.parse('compare-runs', ['a_b', 'c']) == dict(a='a_b', b='c', root='')
    for name in cli.commands: assert '_' not in ''.join(re.findall(r'--[\w-]+', cli.create_parser(name).format_help()))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Three classes of drawn shapes, 16 each, and a folder of new ones with a file that is no image."
    top, rng = tmp_path_factory.mktemp('own'), np.random.default_rng(0)
    draw = dict(round=lambda g, b: g.ellipse(b, fill='white'), box=lambda g, b: g.rectangle(b, fill='red'), bar=lambda g, b: g.line(b, fill='blue', width=5))
    for c, shape in draw.items():
        for i in range(18):
            im = Image.fromarray(rng.integers(0, 60, (40, 56, 3), dtype=np.uint8))
            x, y = map(int, rng.integers(2, 20, 2))
            shape(ImageDraw.Draw(im), (x, y, x + 18, y + 18))
            to = top/'new' if i > 15 else top/'photos'/c
            to.mkdir(parents=True, exist_ok=True)
            im.save(to/f'{c} {i}.jpg')
    (top/'new/notes.txt').write_text('not an image')
    return top


soon = {
    'train {} --model lenet5 --layout klass': 'is no layout', 'audit {} --layout class/class': 'is no layout', 'best {} --layout name:^cat': 'has no group',
    'train {} --model lenet5 --groups name:(': 'is no regular expression', 'suspects {} --groups patient': 'a column of a table', 'compare {} --models lenet5 --groups name:[': 'no regular',
    'train csv:{top}/none.csv': 'There is no table', 'audit csv:{top}/photo.csv': 'photos.csv?', 'compare csv:{top} --models lenet5': 'is a folder: write folder:',
    'train folder:{top}/Photo': 'photos?', 'best folder:{top}/photos.csv': 'is a table: write csv:',
    'train {} --model lenet5 --subset 1e-9': '`subset` must be', 'compare {} --models lenet5 --subset .01': '0.01 of 48 files is 0', 'train {} --model lenet5 --subset 49': '49 of 48 files',
    'train {} --model lenet5 --subset 1.5': 'a whole number of images, or a fraction',
    'train {} --model lenet5 --root {top}/photos.csv': 'Nothing can be written to', 'run tuned --root {top}/photos.csv/x': 'set --root to', 'best {} --root {top}/photos.csv': 'set --root to',
    'train {} --model lenet5 --lr 1e300': '`lr` must be from', 'train {} --model lenet5 --bs 1e9': '`bs` must be from', 'train {} --lr 1e5': '`lr` must be from 1e-12 to 1,000', 'compare {} --models lenet5 --lr inf': '`lr` must be from',
    'train {} --model lenet5 --max-bad 1.5': '`max_bad` is a whole number', 'suspects {} --max-bad 1e999': '`max_bad` must be', 'best {} --max-bad 2.5': '`max_bad` is a whole',
    'train {} --model lenet5 --image-range=-1e308,1e308': '`image_range` is the values'}


@pytest.mark.parametrize('words', soon, ids=str)
def test_errors_about_own_images_come_at_once(words, photos):
    "One message, without what takes seconds to import, and nothing left behind."
    (photos/'photos.csv').write_text('image,label\nround 0.jpg,round\n')
    before, was = resource.getrusage(resource.RUSAGE_CHILDREN), sorted(photos.iterdir())
    done = imgstudy(*words.replace('{}', f'folder:{photos}/photos').replace('{top}', str(photos)).split())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1 and done.stderr.startswith('imgstudy: ') and soon[words] in done.stderr, done.stderr
    assert 'imported' not in done.stderr and done.stderr.count('\n') == 1 and not done.stdout
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert sorted(photos.iterdir()) == was


def run_main(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, 'argv', ['imgstudy', *map(str, words)])
    cli.main()
    return capsys.readouterr()


def test_from_photographs_to_a_prediction(photos, tmp_path, monkeypatch, capsys):
    say = lambda *words: run_main(monkeypatch, capsys, *words)
    root = ('--root', tmp_path/'runs')
    said = say('train', f'folder:{photos}/photos', '--model', 'lenet5', '--seeds', 2, '--epochs', 3, *root).out
    assert '3 classes' in said and '2 trainings of lenet5' in said and '95 % interval' in said
    id = re.search(r'imgstudy predict (\S+) photo.jpg', said)[1]
    assert (tmp_path/'runs'/id/'record.json').exists()
    assert say('train', f'folder:{photos}/photos', '--model', 'lenet5', '--seeds', 2, '--epochs', 3, *root).out.count('was trained before') == 2
    done = say('predict', id, photos/'new', *root)
    assert done.out.splitlines()[0] == 'image\tpredicted\tprobability\tnote' and len(done.out.splitlines()) == 7
    assert done.err.startswith('1 file is no image: notes.txt\n') and done.err.splitlines()[1].startswith('6 predictions: ')
    by_path = json.loads(say('predict', tmp_path/'runs'/id, photos/'new', '--json').out)
    assert [r['predicted'] for r in by_path] == [line.split('\t')[1] for line in done.out.splitlines()[1:]]
    say('predict', id, photos/'new', '--out', tmp_path/'t.csv', '--sort-into', tmp_path/'sorted', *root)
    assert len((tmp_path/'t.csv').read_text().splitlines()) == 7
    assert sorted(p.name for p in (tmp_path/'sorted').glob('*/*')) == sorted(p.name for p in (photos/'new').glob('*.jpg'))
    say('explain', id, *sorted((photos/'new').glob('*.jpg'))[:2], '--out', tmp_path/'seen.png', *root)
    assert Image.open(tmp_path/'seen.png').size[0] > 200


def test_a_training_of_years_is_asked_about(photos, tmp_path):
    words = ('train', f'folder:{photos}/photos', '--model', 'convnext_base', '--init', 'scratch', '--epochs', '90000', '--root', str(tmp_path))
    done = imgstudy(*words)
    assert done.returncode == 1 and re.search(r'would take about [\d,]+ days', done.stderr) and not [*tmp_path.iterdir()]


def test_missing_weights_name_the_way_out(photos, tmp_path, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    done = imgstudy('train', f'folder:{photos}/photos', '--model', 'convnext_small', '--root', str(tmp_path), IMGSTUDY_DATA=str(tmp_path))
    assert done.returncode == 1 and '--init scratch' in done.stderr


def test_compare_says_first_what_it_takes_and_what_is_missing(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))  # no weights there
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    words = ('--models', 'lenet5,convnext_small', '--epochs', 2, '--size', 64, '--subset', .5, '--lr', .01, '--dry-run', '--root', tmp_path/'runs')
    said = run_main(monkeypatch, capsys, 'compare', f'folder:{photos}/photos', *words).out
    assert '6 trainings, about' in said and 'at scale' not in said and re.search(r'Weights of all records: \d+ MB in', said)
    assert 'Cannot be trained: convnext_small, imagenet: weights: ' in said and not (tmp_path/'runs').exists()
    plan = [line.split('\t') for line in said.splitlines() if line.startswith('lenet5, scratch')]
    assert plan[0][5:8] == ['64', '0.5', '6'], 'size, subset, epochs of three seeds'
    sixth = ('--folds', 6, '--seeds', 1)
    assert '6 trainings' in run_main(monkeypatch, capsys, 'compare', 'digits', '--models', 'lenet5', *sixth, '--dry-run', '--root', tmp_path/'runs').out


def test_compare_answers_in_words_and_one_picture(photos, tmp_path, monkeypatch, capsys):
    words = ('--models', 'lenet5,mlp_s', '--epochs', 3, '--seeds', 2, '--no-notebook', '--root', tmp_path/'runs')
    said = run_main(monkeypatch, capsys, 'compare', f'folder:{photos}/photos', *words).out
    again = run_main(monkeypatch, capsys, 'compare', f'folder:{photos}/photos', *words, '--dry-run').out
    assert '4 trainings, about 1 minute ' in said and '4 trainings, all done.' in again, 'what has a record takes no time'
    more = run_main(monkeypatch, capsys, 'compare', f'folder:{photos}/photos', *words[:4], '--seeds', 3, *words[6:], '--dry-run').out
    assert '6 trainings, 4 done, the others about 1 minute ' in more
    answer = (tmp_path/'runs'/'compare-photos.txt').read_text()
    assert answer in said and re.match(r'Take (lenet5|mlp_s), scratch: chosen by', answer)
    for part in ('95 % interval', 'points [', 'It costs ', ' parameters, ', 'FLOPs an image', 'Two trainings each'): assert part in answer, answer
    assert not re.search(r'p = 0\.0+\b|\t0\.0000', said)
    assert Image.open(tmp_path/'runs'/'compare-photos.png').size[0] > 500


@pytest.mark.parametrize('words', [('--seeds', 3), ('--seeds', 1), ('--folds', 3, '--seeds', 1)])
def test_a_budget_that_is_used_up_starts_nothing(words, tmp_path, monkeypatch, capsys):
    words = ('--models', 'lenet5,mlp_s', '--epochs', 1, '--no-notebook', '--budget', '1s', *words, '--root', tmp_path/'runs')
    monkeypatch.setattr('imgstudy.commands._left', lambda time: .001 if time else None)
    said = run_main(monkeypatch, capsys, 'compare', 'digits', *words).out
    assert 'Not started within the budget: ' in said and 'No network was trained to the end' in said
    assert 'Not complete: lenet5, scratch: ' in said and not [*(tmp_path/'runs').glob('*/record.json')]


def gained(fractions):
    "Records of two networks, one seed for each pair of accuracies."
    from imgstudy.stats.seeds import synth_record
    return [[synth_record(s, f) for s, f in enumerate(side)] for side in zip(*fractions)]


@pytest.mark.parametrize('fractions, ends', [
    ([(.1, .9), (.1, .2)], '[-100.0, +100.0]'), ([(.2, .3), (.1, .8)], '[-100.0, +100.0]'), ([(.9, .3), (.5, .6)], '[-100.0, +100.0]'),
    ([(.9, .01), (.95, .1)], '[-100.0, -60.9]'), ([(.8, .82), (.8, .83)], '[+2.4, +2.9]')])
def test_an_interval_of_points_ends_at_a_hundred(fractions, ends):
    "By t over two seeds it would go to 350: no two accuracies are further apart than 100 points, in a table or a sentence."
    from imgstudy.commands import _short
    from imgstudy.report.compare import _against
    from imgstudy.report.wording import gain_sentence
    from imgstudy.stats.pairs import compare_all
    table = compare_all(dict(zip('AB', gained(fractions))))
    row, shown = next(table.itertuples()), _short(table).iloc[0]
    assert f'{ends} over seeds and images' in _against('A', row) and shown.over == 'seeds and images'
    assert f'[{100*shown.low:+.1f}, {100*shown.high:+.1f}]' == ends, 'the table and the sentence say the same interval'
    values = [*table.filter(regex='_low|_high').iloc[0]]
    assert max(map(abs, values)) <= 1 and not re.search(r'[+-](1\.\d*[1-9]|[2-9]\.)', gain_sentence(row.gain))


def told(better, p, p_holm, ends=(-.9, -.01), test='paired t', short=('', ''), repeats='seeds'):
    from types import SimpleNamespace
    from imgstudy.stats.pairs import Gain
    gain = Gain(.9, .5, -.4, repeats, 3, 3, ends, ends, ends, 0., short=short)
    return SimpleNamespace(gain=gain, better=better, first='A', second='B', p=p, p_holm=p_holm, n_pairs=3, test=test)


@pytest.mark.parametrize('row, n, why', [
    (told(None, .0489, .1466), 3, 'over seeds; the interval is for this comparison alone, the verdict adjusted for all 3: p = 0.147)'),
    (told(None, .03, .06), 2, 'over seeds; the interval is for this comparison alone, the verdict adjusted for all 2: p = 0.060)'),
    (told(None, .057, .057, test='McNemar'), 1, "over seeds; the verdict is by McNemar's test: p = 0.057)"),
    (told('A', .0001, .0002, ends=(-.9, .01)), 2, 'over seeds; the verdict is by a paired t-test: p < 0.001)'),
    (told(None, .3, .3, test='Nadeau-Bengio, ratio 0.5', repeats='folds'), 1, 'over folds; the verdict is by the test of Nadeau and Bengio: p = 0.300)'),
    (told(None, float('nan'), float('nan')), 2, 'over seeds; no test, as all seeds differ alike)'),
    (told(None, .01, .02, short=('not better than chance', '')), 2, 'over seeds; too short to tell: A was not better than chance)'),
    (told('A', .01, .02), 2, '[-90.0, -1.0] over seeds)'), (told(None, .4, .8, ends=(-.9, .1)), 2, '[-90.0, +10.0] over seeds)')])
def test_an_interval_beside_another_verdict_is_explained(row, n, why):
    from imgstudy.report.compare import _against
    assert _against('A', row, n).endswith(why)


def test_what_learnt_nothing_is_no_cheap_alternative(monkeypatch):
    from dataclasses import replace
    from imgstudy.report.compare import answer_text
    a, b = gained([(.8, .5), (.82, .51), (.79, .5)])
    quick = [replace(r, history=r.history.assign(seconds=.01)) for r in b]
    said = answer_text({'A': a, 'B': quick})
    assert 'too short to tell: B was not better than chance' in said and 'costs less' not in said


def test_the_table_of_pairs_says_what_is_adjusted():
    from imgstudy.commands import _pairs_title
    assert _pairs_title(1) == 'Compared pair by pair'
    assert _pairs_title(3).endswith('each interval alone, p_holm and finding adjusted for all 3')


@pytest.mark.parametrize('model', ['mlp_s', 'perceptron2', 'perceptron3'])
def test_a_perceptron_is_not_explained_in_names_of_classes(model, photos, tmp_path, monkeypatch, capsys):
    from imgstudy.report.explain import plot_grad_cam
    record = train(create_run(dataset=f'folder:{photos}/photos', model=model, size=16, epochs=1), root=tmp_path/'runs')
    photo = next((photos/'new').glob('*.jpg'))
    ways = (lambda: run_main(monkeypatch, capsys, 'explain', record.id, photo, '--root', tmp_path/'runs', '--out', tmp_path/'x.png'),
            lambda: plot_grad_cam(record, photo))
    for way in ways:
        with pytest.raises((StudyError, SystemExit)) as e: way()
        said = str(e.value)
        assert 'Where this network looks cannot be shown' in said and 'Convolutional networks (such as resnet18) and Vision Transformers' in said
        assert not re.search(r'FromPixels|Sequential|nn\.|[a-z][A-Z]', said.replace('imgstudy', '').replace('Grad-CAM', '')), said
    assert not (tmp_path/'x.png').exists()


def test_no_probability_is_zero():
    from imgstudy.show import say_cell
    for column in ('p', 'p_holm', 'p_better'):
        for p in (0., 1e-300, 4e-5, 9.99e-4): assert say_cell(p, column) == '<0.001'
        assert say_cell(.0234, column) == '0.0234' and say_cell(float('nan'), column) == ''


def test_options_say_how_a_folder_is_read():
    "What the reader of folders asks for can be answered on the command line."
    from imgstudy.quick import run_options
    given = dict(dataset='folder:x', model='lenet5', layout='class/group', groups='name:^(p.)_', label_col='', image_col='')
    assert run_options(given) == dict(dataset='folder:x', model='lenet5', layout='class/group', groups='name:^(p.)_')


def test_images_below_a_folder_are_known_by_content(tmp_path):
    "A telephone's format, a wrong ending and capitals are images; a text, an empty file and a table are none."
    import shutil
    from PIL import Image
    from imgstudy.apply import image_files
    shutil.copy(Path(__file__).parent/'lying.heic', tmp_path/'a.heic')
    Image.new('RGB', (9, 9)).save(tmp_path/'b.JPG')
    Image.new('RGB', (9, 9)).save(tmp_path/'c.dat', 'PNG')
    for name in ('notes.txt', 'empty.bin', 'table.csv'): (tmp_path/name).write_text('' if name == 'empty.bin' else 'words')
    images, others = image_files([tmp_path])
    assert [Path(p).name for p in images] == ['a.heic', 'b.JPG', 'c.dat']
    assert {Path(p).name for p in others} == {'notes.txt', 'empty.bin', 'table.csv'}


goes_on = ['train folder:x', 'best folder:x', 'compare digits', 'run all', 'run --study x', 'work a/smoke/b', 'decide a b', 'features digits', 'suspects digits', 'collect all', 'leak a --train', 'leak --tr a']
begins_anew = [*(n for n in cli.commands if n not in {w.split()[0] for w in goes_on}), 'predict a b', 'share a b', 'export a b.onnx', 'report --root x', 'leak a', 'train digits --dry-run', 'run all --dry_run', '--help', '']


@pytest.mark.parametrize('words', goes_on + begins_anew)
def test_ctrl_c_promises_to_go_on_only_where_it_does(words, monkeypatch, capsys):
    def stop(_): raise KeyboardInterrupt
    monkeypatch.setattr(cli, 'answer', stop)
    monkeypatch.setattr(sys, 'argv', ['imgstudy', *words.split()])
    with pytest.raises(SystemExit) as e: cli.main()
    assert e.value.code == 130
    assert capsys.readouterr().err == 'imgstudy: stopped.' + ' The same command goes on from here.'*(words in goes_on) + '\n'


def test_features_that_were_computed_stay_after_ctrl_c(tmp_path, monkeypatch, capsys):
    "Which is why the same command goes on."
    from imgstudy.training.features import Extractor
    for name in ('cache', 'runs'): monkeypatch.setenv(f'IMGSTUDY_{name.upper()}', str(tmp_path/name))
    record = train(create_run(dataset='digits', model='lenet5', size=32, epochs=1, subset=200))
    real, seen = Extractor.__call__, []
    def computed(most):
        seen.clear()
        def call(self, images):
            if sum(seen) >= most: raise KeyboardInterrupt
            seen.append(len(images))
            return real(self, images)
        monkeypatch.setattr(Extractor, '__call__', call)
        monkeypatch.setattr(sys, 'argv', ['imgstudy', 'features', 'digits', '--from', str(record.path), '--out', str(tmp_path/'t.csv')])
        try: cli.main()
        except SystemExit as e: assert e.code == 130
        return sum(seen)
    first = computed(100)
    assert 'goes on from here' in capsys.readouterr().err and not (tmp_path/'t.csv').exists()
    second, n = computed(10**9), len((tmp_path/'t.csv').read_text().splitlines()) - 1
    assert first >= 100 and second <= n - first + 32 # at most a batch twice
