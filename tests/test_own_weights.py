"A weights file is named by its content: moved, it is the same run; no record says where it lay."
import re
import pytest
from imgstudy.core import StudyError
from imgstudy.own_weights import weights_place
from imgstudy.models.register import create_model
from imgstudy.records.record import read_record
from imgstudy.runs import Run, Recipe, run_id
from imgstudy.sweep.needs import blocked_by
from imgstudy.study.create import create_run
from imgstudy.training.train import train
from safetensors.torch import save_file


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ('CACHE', 'RUNS'): monkeypatch.setenv(f'IMGSTUDY_{name}', str(tmp_path/name.lower()))
    folder = tmp_path/'home of anna'
    folder.mkdir()
    save_file(create_model('lenet5', 5, size=16).state_dict(), folder/'lenet 5.safetensors')
    return folder


quick = dict(dataset='digits', model='lenet5', size=16, epochs=1, subset=100)


def test_moved_renamed_or_linked_it_is_the_same_weights(home):
    first = create_run(**quick, init=f'file:{home}/lenet 5.safetensors')
    assert re.fullmatch(r'file:lenet_5\.safetensors@[0-9a-f]{12}', first.init)
    assert create_run(**quick, init=first.init) == first # its name is enough
    (home/'old').mkdir()
    moved = (home/'lenet 5.safetensors').rename(home/'old/lenet 5.safetensors')
    with pytest.raises(StudyError, match='no longer there: .*imgstudy locate file:PATH'): create_run(**quick, init=first.init)
    assert run_id(create_run(**quick, init=f'file:{moved}')) == run_id(first)
    (home/'lenet 5.safetensors').symlink_to(moved)
    assert create_run(**quick, init=f'file:{home}/lenet 5.safetensors').init == first.init


def test_other_content_is_another_run(home):
    first = create_run(**quick, init=f'file:{home}/lenet 5.safetensors')
    save_file(create_model('lenet5', 7, size=16).state_dict(), home/'lenet 5.safetensors')
    assert 'holds other weights' in blocked_by(first, {})[1]
    assert create_run(**quick, init=f'file:{home}/lenet 5.safetensors').init != first.init


def test_no_record_says_where_it_lay(home, tmp_path):
    record = train(create_run(**quick, init=f'file:{home}/lenet 5.safetensors'))
    assert record.metrics['n'] and read_record(record.path).run == record.run
    for p in record.path.rglob('*'):
        if p.is_file(): assert str(tmp_path).encode() not in p.read_bytes() and b'anna' not in p.read_bytes(), p.name


def test_a_path_in_a_run_of_before_still_names_the_file(home):
    path = home/'lenet 5.safetensors'
    assert weights_place(str(path)) == path
    run = Run('digits', 'lenet5', init=f'file:{path}', size=16, subset=100, augment='none', recipe=Recipe(epochs=1))
    assert blocked_by(run, {}) is None or 'weights' not in blocked_by(run, {})[0]
