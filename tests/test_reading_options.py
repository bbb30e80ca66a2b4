"How your own images are read can be said to every command that reads them."
import json
from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from pathlib import Path
from PIL import Image
from imgstudy.cli import answer, parse
from imgstudy.commands import _keep_data
from imgstudy.core import StudyError
from imgstudy.quick import reading_options, run_options
from imgstudy.study.create import create_run
from imgstudy.training.train import train


@pytest.fixture
def patients(tmp_path):
    "Classes with a folder per patient, of 12-bit images, two of them damaged."
    for c in ('ill', 'well'):
        for p in range(4):
            (tmp_path/'scans'/c/f'{c}{p}').mkdir(parents=True)
            for i in range(3): Image.fromarray(np.full((16, 16), 40*i + 100*p + 900*(c == 'ill'), np.uint16)).save(tmp_path/'scans'/c/f'{c}{p}'/f'{i}.png')
    for i in range(4): (tmp_path/f'scans/well/well0/bad{i}.png').write_bytes(b'\x89PNG\r\n')
    return tmp_path/'scans'


how = ['--layout', 'class/group', '--image-range', '0,4095', '--max-bad', '4']


@pytest.mark.parametrize('command', ['train', 'compare', 'features'])
def test_options_reach_the_run(command, patients):
    given = parse(command, [f'folder:{patients}', *how])
    params = reading_options(given) if command == 'features' else run_options(given)
    run = create_run(**{**params, 'dataset': f'folder:{patients}', 'model': 'lenet5', 'init': 'scratch', 'tune': None})
    assert (run.layout, run.image_range, run.max_bad) == ('class/group', (0., 4095.), 4)


@pytest.mark.parametrize('text, value', [('4', 4), ('0', 0), ('0.05', .05), ('1', 1)])
def test_max_bad_is_a_number_or_a_fraction(text, value):
    got = reading_options(dict(max_bad=text))['max_bad']
    assert got == value and type(got) is type(value)
    with pytest.raises(StudyError, match='--max-bad 5'): reading_options(dict(max_bad='few'))


@pytest.mark.parametrize('command', ['train', 'compare', 'audit', 'features'])
@pytest.mark.parametrize('option', [['--layout', 'class'], ['--label-col', 'what']])
def test_an_option_of_other_data_is_refused_at_once(command, option):
    with pytest.raises(StudyError, match='is for data sets called (folder|csv):PATH'): answer([command, 'digits', *option])


def test_features_of_patients(patients, tmp_path, capsys, monkeypatch):
    from safetensors.torch import save_file
    from imgstudy.models.register import create_model
    save_file(create_model('timm:test_resnet', 7, size=32).state_dict(), tmp_path/'w.safetensors')
    start = ['--model', 'timm:test_resnet', '--init', f"file:{tmp_path/'w.safetensors'}", '--size', '32', '--out', str(tmp_path/'f.csv')]
    with pytest.raises(StudyError, match='4 of 28 images'): answer(['features', f'folder:{patients}', *start, '--layout', 'class/group'])
    answer(['features', f'folder:{patients}', *start, *how])
    table = pd.read_csv(tmp_path/'f.csv')
    assert len(table) == 24 and set(table.label) == {'ill', 'well'}
    parts = table.assign(patient=table.path.str.split('/').str[1]).groupby('patient').split.nunique()
    assert (parts == 1).all(), 'a patient is on one side of the split'


def test_compare_plans_on_patients(patients, tmp_path, capsys):
    answer(['compare', f'folder:{patients}', '--models', 'lenet5', '--seeds', '2', '--epochs', '1', '--dry-run', '--root', str(tmp_path/'runs'), *how])
    assert 'Weights of all records' in capsys.readouterr().out


def test_collect_audits_data_as_its_records_read_it(patients, tmp_path):
    run = create_run(dataset=f'folder:{patients}', model='lenet5', size=32, epochs=1, layout='class/group', max_bad=4)
    record = train(run, root=tmp_path/'runs')
    (tmp_path/'dest').mkdir()
    for i in range(4): (patients/f'well/well0/bad{i}.png').unlink()
    assert _keep_data([record], tmp_path/'dest') == []
    kept = json.loads(next((tmp_path/'dest/data').glob('*.json')).read_text())
    assert 'ill' in json.dumps(kept)
    for c in ('ill', 'well'): (patients/c).rename(tmp_path/c) # the folder of the record holds no classes now
    said = _keep_data([record], tmp_path/'dest')
    assert len(said) == 1 and 'scans: not audited' in said[0], 'a reason, and the others are audited'
