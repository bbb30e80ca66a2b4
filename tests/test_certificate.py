"An exported file gives the record's predictions, or is refused: a changed resize, order of classes or range, through the commands."
import json, subprocess, sys
import numpy as np, pytest, torch
from types import SimpleNamespace
from PIL import Image
from imgstudy import certificate
from imgstudy.certificate import FromImages, certify, compare_logits, export_certified, run_file
from imgstudy.core import StudyError, version
from imgstudy.predict import export_model, load_predictor, trace_model
from imgstudy.study.create import create_run
from imgstudy.training.train import train

kinds = ['.pt2', pytest.param('.onnx', marks=pytest.mark.skipif(not all(map(version, ('onnx', 'onnxscript', 'onnxruntime'))), reason='needs ONNX'))]


@pytest.fixture(scope='module')
def record(tmp_path_factory):
    "On photographs of several sizes, so that the resize matters: stripes, two ways."
    top, rng = tmp_path_factory.mktemp('stripes'), np.random.default_rng(0)
    for c in ('down', 'up'):
        (top/'photos'/c).mkdir(parents=True)
        for i in range(40):
            h, w = rng.integers(30, 120, 2)
            y, x = np.mgrid[0:h, 0:w]
            wave = np.sin((y*48/h + (1 if c == 'up' else -1)*x*48/w)*1.2 + rng.uniform(0, 6)) # finer than an average at 24 pixels shows well
            Image.fromarray((120 + 40*wave[..., None] + rng.normal(0, 20, (h, w, 3))).clip(0, 255).astype(np.uint8)).save(top/f'photos/{c}/{i}.png')
    return train(create_run(dataset=f'folder:{top}/photos', model='lenet_modern', size=24, epochs=6, precision='fp32'), root=top/'runs')


@pytest.mark.parametrize('kind', kinds)
def test_export_then_certify_by_the_commands(kind, record, tmp_path):
    call = 'import sys; from imgstudy.cli import main; sys.argv = ["imgstudy", *sys.argv[1:]]; main()'
    imgstudy = lambda *args: subprocess.run([sys.executable, '-c', call, *map(str, args)], capture_output=True, text=True)
    done = imgstudy('export', record.path, tmp_path/f'm{kind}')
    assert done.returncode == 0 and '(100.00%)' in done.stdout, done.stderr
    said = json.loads((tmp_path/f'm{kind}.json').read_text())
    assert said['certificate']['sha256'] in done.stdout and said['classes'] == ['down', 'up']
    done = imgstudy('certify', tmp_path/f'm{kind}', record.path)
    assert done.returncode == 0 and said['certificate']['sha256'] in done.stdout, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [f'm{kind}', f'm{kind}.json']


def smooth(p): p.how = 'bicubic'
def nearest(p): p.resize = True
def swapped(p): p.model.model = torch.nn.Sequential(p.model.model, Flipped())
def by_256(p): p.model.mean, p.model.std = p.model.mean*256/255, p.model.std*256/255
def around_zero(p): p.model.mean, p.model.std = (p.model.mean + 1)/2, p.model.std/2 # as if values came in [-1, 1]

class Flipped(torch.nn.Module):
    def forward(self, x): return x.flip(1)

class Nearest(FromImages):
    def forward(self, images):
        x = torch.nn.functional.interpolate(images.permute(0, 3, 1, 2).float(), (self.size, self.size), mode='bilinear') # not antialiased
        return self.model(x/255)


@pytest.mark.parametrize('kind', kinds)
@pytest.mark.parametrize('mistake', [smooth, nearest, swapped, by_256, around_zero])
def test_a_mistake_is_refused_and_nothing_is_written(mistake, kind, record, tmp_path, monkeypatch):
    class Wrong(Nearest if mistake is nearest else FromImages):
        def __init__(self, predictor):
            super().__init__(predictor)
            mistake(self)
    monkeypatch.setattr(certificate, 'FromImages', Wrong)
    with pytest.raises(StudyError, match='is not what .* measured'): export_certified(record, tmp_path/f'm{kind}')
    assert not [*tmp_path.iterdir()]


def test_another_record_a_foreign_file_and_bad_words(record, tmp_path):
    export_certified(record, tmp_path/'m.pt2')
    export_model(record, tmp_path/'plain.pt2')
    with pytest.raises(StudyError, match='not decoded images'): certify(tmp_path/'plain.pt2', record)
    note = json.loads((tmp_path/'m.pt2.json').read_text())
    (tmp_path/'m.pt2.json').write_text(json.dumps(note | dict(classes=['up', 'down'])))
    with pytest.raises(StudyError, match='in another order'): certify(tmp_path/'m.pt2', record)
    (tmp_path/'m.pt2.json').unlink()
    (record.path/'weights.safetensors').rename(tmp_path/'weights') # anywhere: without the weights too
    try: assert certify(tmp_path/'m.pt2', record)['relative'] is None
    finally: (tmp_path/'weights').rename(record.path/'weights.safetensors')
    with pytest.raises(StudyError, match='.onnx or .pt2'): export_certified(record, tmp_path/'m.h5')
    with pytest.raises(StudyError, match='There is no file'): run_file(tmp_path/'none.onnx')


@pytest.fixture(scope='module')
def networks(tmp_path_factory):
    "A LeNet-5 and a probe of it."
    root, digits = tmp_path_factory.mktemp('networks'), dict(dataset='digits', model='lenet5', precision='fp32')
    net = train(create_run(epochs=3, augment='none', **digits), root=root)
    return [net, train(create_run(init=f'run:{net.id}', tune='probe', **digits), root=root)]


@pytest.mark.parametrize('which', [0, 1])
def test_another_range_is_refused_without_the_weights(which, networks, tmp_path):
    "256 in place of 255 changes few predictions or none; what is stored, to float16, tells it all the same."
    record = networks[which]
    export_certified(record, tmp_path/'m.pt2')
    p = load_predictor(record)
    by_256(SimpleNamespace(model=p.model))
    torch.export.save(certificate._traced(p), tmp_path/'wrong.pt2')
    (record.path/'weights.safetensors').rename(tmp_path/'weights')
    try:
        right = certify(tmp_path/'m.pt2', record)
        assert right['relative'] is None and right['from_stored'] < 1e-6
        with pytest.raises(StudyError, match='log-probabilities differ from those recorded' if which == 0 else 'is not what .* measured'): certify(tmp_path/'wrong.pt2', record)
    finally: (tmp_path/'weights').rename(record.path/'weights.safetensors')


@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
def test_an_image_that_flips_by_much_is_no_measure_of_itself(precision):
    logits = np.random.default_rng(0).normal(size=(2000, 3))*5
    logs, pred = certificate._as_logs(logits), logits.argmax(1)
    stored = logs[np.arange(2000), pred].astype(np.float16)
    expect = dict(pred=pred.copy(), target=pred.copy(), log_prob=stored.copy(), target_log_prob=stored.copy())
    assert not certificate._faults(compare_logits(logits, expect), False, precision)
    least = int(np.argmin(logits[7]))
    expect['pred'][7], expect['log_prob'][7] = least, -.1
    assert 'more than the logits of the others' in certificate._faults(compare_logits(logits, expect), False, precision)
