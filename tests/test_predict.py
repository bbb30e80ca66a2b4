"A trained model outside of the library: exported in each family, and a table that survives a kill."
import os, signal, subprocess, sys
import pytest
from imgstudy.data.datasets import find_images
from imgstudy.predict import export_model, load_predictor, predict
from imgstudy.submission import write_submission
from imgstudy.training.train import train
from imgstudy.study.create import create_run

write = '''
import sys
from imgstudy.submission import write_submission
write_submission(sys.argv[1], sys.argv[2], sys.argv[3], chunk=256, workers={workers})
'''


def trained(root, model='lenet5', **params):
    return train(create_run(dataset='digits', model=model, epochs=1, subset=100, **params), root=root)


@pytest.fixture(scope='module')
def record(tmp_path_factory): return trained(tmp_path_factory.mktemp('runs'))


@pytest.fixture(scope='module')
def contest(tmp_path_factory):
    "A folder of 4,000 images: 1.pgm to 4000.pgm."
    folder, (root, items) = tmp_path_factory.mktemp('contest'), find_images('digits')
    for i in range(4000): (folder/f'{i + 1}.pgm').symlink_to((root/items.path[i % len(items)]).resolve())
    return folder


@pytest.mark.parametrize('workers', [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_submission_is_continued(workers, record, contest, tmp_path, capsys):
    whole, torn = tmp_path/'whole.csv', tmp_path/'torn.csv'
    args = [sys.executable, '-c', write.format(workers=workers), contest, record.path, torn]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    assert 'of 4,000 images' in process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    part = torn.with_name('torn.csv.part')
    rows = len(part.read_text().splitlines()) - 1
    assert process.returncode == -signal.SIGKILL and not torn.exists() and 400 <= rows < 4000
    capsys.readouterr()
    write_submission(contest, record, torn, workers=workers)
    assert 'images were done before' in capsys.readouterr().out
    write_submission(contest, record, whole)
    lines = whole.read_text().splitlines()
    assert torn.read_bytes() == whole.read_bytes() and len(lines) == 4001 and lines[-1].startswith('4000,')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['torn.csv', 'whole.csv']


def test_a_torn_line_is_dropped(record, contest, tmp_path):
    "Killed between two bytes: what is kept ends with a batch."
    dies = 'import os, imgstudy.predict as p\nreal = os.fsync\n' \
           'def fsync(n): real(n); open(sys.argv[3] + ".part", "a").write("257,") if os.fstat(n).st_size > 3000 else 0; ' \
           'os.kill(os.getpid(), 9) if os.fstat(n).st_size > 3000 else 0\nos.fsync = fsync\n'
    code = write.format(workers=0).replace('write_submission(', dies + 'write_submission(')
    done = subprocess.run([sys.executable, '-c', code, contest, record.path, tmp_path/'torn.csv'])
    part = tmp_path/'torn.csv.part'
    assert done.returncode == -signal.SIGKILL and part.read_text().endswith('\n257,')
    torn, whole = (write_submission(contest, record, tmp_path/f'{n}.csv') for n in ('torn', 'whole'))
    assert torn.read_bytes() == whole.read_bytes()


def check_export(record, path):
    for package in ('onnx', 'onnxscript', 'onnxruntime') if path.suffix == '.onnx' else (): pytest.importorskip(package)
    said = export_model(record, path)
    assert said['checked']['largest_difference'] < 1e-4 and path.exists() and path.with_name(path.name + '.json').exists()


families = ['lenet5', 'convnext', 'vit', 'timm:test_resnet']
@pytest.mark.parametrize('suffix', ['.pt2', '.onnx'])
@pytest.mark.parametrize('model', families + [pytest.param('mobilenetv2_32', marks=pytest.mark.slow)])
def test_an_exported_model_agrees(model, suffix, tmp_path):
    size = dict(size=64) if model.startswith('timm') else {}
    check_export(trained(tmp_path, model, **size), tmp_path/f'model{suffix}')


def test_an_exported_model_needs_no_imgstudy(record, tmp_path):
    export_model(record, tmp_path/'model.pt2')
    code = f'import sys, torch; m = torch.export.load({str(tmp_path/"model.pt2")!r}).module(); ' \
           'print(*m(torch.full((5, 3, 32, 32), .5)).shape, "imgstudy" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.split() == ['5', '10', 'False']


def test_bf16_predictions_are_near(tmp_path):
    "The record was tested in bfloat16, `predict` answers in float32."
    record, root = trained(tmp_path, 'convnext', precision='bf16'), find_images('digits')[0]
    again = predict([root/p for p in record.predictions['path']], record)
    assert (again.predicted.astype(int) == record.predictions['pred']).mean() > .98


def test_without_onnx_the_message_names_the_packages(record, tmp_path, monkeypatch):
    monkeypatch.setattr('imgstudy.predict.version', lambda name: None)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript and onnxruntime: pip install 'imgstudy\[onnx\]'"): export_model(record, tmp_path/'a.onnx')


def test_preparation_follows_the_weights(tmp_path):
    "Another size, interpolation and normalisation than the default reach the predictions."
    record, root = trained(tmp_path, size=28, interpolation='bicubic', normalize='imagenet', precision='fp32'), find_images('digits')[0]
    predictor = load_predictor(record)
    assert (predictor.size, predictor.interpolation, round(predictor.model.mean[0].item(), 3)) == (28, 'bicubic', .485)
    again = predict([root/p for p in record.predictions['path']], predictor)
    assert (again.predicted.astype(int) == record.predictions['pred']).all()
