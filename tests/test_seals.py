"A damaged record: each reader says so in one message, and `verify` names the file."
import json, shutil
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.records.record import copy_record, load_model, read_record
from imgstudy.records.seals import changed_files
from imgstudy.study.create import create_run
from imgstudy.training.train import train


def folder(path):
    path.unlink()
    path.mkdir()


def written(change): return lambda path: path.write_bytes(change(path.read_bytes()))
def flip(b, at): return b[:int(at*len(b))] + bytes([b[int(at*len(b))] ^ 4]) + b[int(at*len(b)) + 1:]


kinds = dict(cut=written(lambda b: b[:len(b)//2]), empty=written(lambda b: b''), folder=folder,
             utf16=written(lambda b: b.decode('latin1').encode('utf-16')), flip=written(lambda b: flip(b, .47)))


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "Two records, and an image."
    root = tmp_path_factory.mktemp('records')
    runs = [create_run(dataset='digits', model='lenet5', epochs=1, subset=100, augment='none', seed=s) for s in range(2)]
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8)).save(root/'a.png')
    return [train(r, root=root).path for r in runs]


@pytest.fixture
def hurt(two, tmp_path, monkeypatch):
    "A folder of both records, to damage the first."
    monkeypatch.setenv('IMGSTUDY_RUNS', str(tmp_path/'runs'))
    monkeypatch.chdir(tmp_path)
    for p in two: shutil.copytree(p, tmp_path/'runs'/p.name)
    (tmp_path/'m.pt2').write_bytes(b'')
    return [tmp_path/'runs'/p.name for p in two], two[0].parent/'a.png'


def readers(a, b, image):
    return [f'predict {a} {image}', f'explain {a.name} {image}', f'diagnose {a.name}', f'diagnose {b.name}', f'compare-runs {b.name} {a.name}',
            f'decide {a.name} {b.name}', 'verify', f'train digits --from {a.name} --dry-run', f'leak {a.name}', f'export {a.name} m.pt2',
            f'certify m.pt2 {a.name}', f'share {a.name} shared']


def unseal(path):
    content = json.loads((path/'record.json').read_text())
    del content['seal']
    (path/'record.json').write_text(json.dumps(content, indent=1))


def says(words, capsys):
    "What a command answers, if anything; never anything but a `StudyError`."
    try: cli.answer(words.split())
    except StudyError as e: return str(e)
    finally: capsys.readouterr()


cases = [('record.json', k, True) for k in ('cut', 'folder', 'utf16', 'flip')] + [('record.json', k, False) for k in ('empty', 'flip')]
cases += [('history.csv', 'cut', True), ('predictions.npz', 'flip', True), ('predictions.npz', 'cut', False), ('weights.safetensors', 'flip', True),
          ('weights.safetensors', 'folder', False)]


@pytest.mark.parametrize('file,kind,sealed', cases)
def test_no_reader_shows_a_traceback(file, kind, sealed, hurt, capsys):
    (a, b), image = hurt
    if not sealed: unseal(a)
    kinds[kind](a/file)
    said = {words: says(words, capsys) for words in readers(a, b, image)}
    if sealed and file == 'record.json': assert 'damaged' in said['verify'] or 'was changed' in said['verify']
    elif sealed: assert file in said['verify']
    try: train(create_run(dataset='digits', model='lenet5', epochs=1, subset=100, init=f'run:{a.name}'), root=a.parent)
    except StudyError as e: assert a.name in str(e)


@pytest.mark.parametrize('name', ['"fingerprint"', '"classes"', '"counts"', '"train"', '"data"'])
def test_a_misspelt_name_is_one_message(name, hurt, capsys):
    (a, b), image = hurt
    unseal(a)
    text = (a/'record.json').read_text()
    (a/'record.json').write_text(text.replace(f'{name}: ', f'"x{name[1:]}: ', 1))
    with pytest.raises(StudyError, match='names no'): read_record(a)
    for words in readers(a, b, image):
        assert words == 'verify' or f'diagnose {b.name}' == words or a.name in says(words, capsys), words


def test_a_lost_metric_of_a_sealed_record_is_damage(hurt, capsys):
    (a, _), _ = hurt
    text = (a/'record.json').read_text()
    (a/'record.json').write_text(text.replace('"top5_accuracy"', '"tpp5_accuracy"', 1))
    assert 'record.json was changed since it was sealed' in says('verify', capsys)


def test_a_seal_is_made_again_and_the_first_is_kept(two, tmp_path):
    record = read_record(two[0])
    copy = copy_record(record, tmp_path/'kept')
    seal, first = (json.loads((p/'record.json').read_text())['seal'] for p in (copy, two[0]))
    assert seal['first'] == first and 'weights.safetensors' in first['files'] and 'weights.safetensors' not in seal['files']
    assert seal['files']['history.csv'] == first['files']['history.csv'] and not changed_files(copy)
    again = copy_record(read_record(copy), tmp_path/'again')
    assert (again/'record.json').read_bytes() == (copy/'record.json').read_bytes()


def test_records_of_before_are_not_sealed(hurt, capsys):
    (a, _), _ = hurt
    unseal(a)
    cli.answer(['verify'])
    assert '1 sealed, 1 not sealed' in capsys.readouterr().out
    load_model(read_record(a))
