"The files of a probe, and of a network that was trained in bfloat16, on photographs: certified, or refused with what to do."
import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import save_file
from imgstudy.certificate import certify, export_certified
from imgstudy.core import StudyError, version
from imgstudy.models.register import create_model
from imgstudy.study.create import create_run
from imgstudy.training.train import train

kinds = ['.pt2', pytest.param('.onnx', marks=pytest.mark.skipif(not all(map(version, ('onnx', 'onnxscript', 'onnxruntime'))), reason='needs ONNX'))]


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "Pictures of several sizes, of stripes two ways."
    top, rng = tmp_path_factory.mktemp('stripes'), np.random.default_rng(0)
    for c in ('down', 'up'):
        (top/'photos'/c).mkdir(parents=True)
        for i in range(40):
            h, w = rng.integers(50, 120, 2)
            y, x = np.mgrid[0:h, 0:w]
            wave = np.sin((y*48/h + (1 if c == 'up' else -1)*x*48/w)*.6 + rng.uniform(0, 6))
            Image.fromarray((120 + 60*wave[..., None] + rng.normal(0, 20, (h, w, 3))).clip(0, 255).astype(np.uint8)).save(top/f'photos/{c}/{i}.jpg')
    return top


@pytest.fixture(scope='module')
def probe(photos):
    torch.manual_seed(0)
    net = create_model('timm:test_resnet', 10, size=64).train()
    with torch.no_grad():
        for _ in range(4): net(torch.rand(16, 3, 64, 64))
    save_file(net.state_dict(), photos/'net.safetensors')
    return train(create_run(dataset=f'folder:{photos}/photos', model='timm:test_resnet', init=f'file:{photos}/net.safetensors', tune='probe', size=64), root=photos/'runs')


@pytest.mark.parametrize('kind', kinds)
def test_a_probe_is_certified(kind, probe, tmp_path):
    said = export_certified(probe, tmp_path/f'm{kind}')
    c = said['certificate']
    assert c['share'] == 1 and c['precision'] == dict(record=probe.info['model']['precision'], file='fp32')
    assert certify(tmp_path/f'm{kind}', probe)['sha256'] == c['sha256']


@pytest.fixture(scope='module')
def bf16(photos):
    return train(create_run(dataset=f'folder:{photos}/photos', model='lenet_modern', size=24, epochs=6, precision='bf16'), root=photos/'runs')


@pytest.mark.parametrize('kind', kinds)
def test_a_network_trained_in_bfloat16(kind, bf16, tmp_path):
    "Sixteen test images: all predictions must be the same. Rounding to bfloat16 shows in the logits, and is not taken for a mistake."
    c = export_certified(bf16, tmp_path/f'm{kind}')['certificate']
    assert c['precision'] == dict(record='bf16', file='fp32') and c['share'] == 1
    assert c['relative'] < 1e-4 < c['from_record'] <= c['largest_difference'] # the network's in float32; the record's are rounded


def test_predictions_that_rounding_changed_are_refused_with_what_to_do(bf16, tmp_path, monkeypatch):
    flipped = dict(bf16.predictions)
    flipped['pred'] = np.where(np.arange(len(flipped['pred'])) == 0, 1 - flipped['pred'], flipped['pred'])
    monkeypatch.setattr(bf16, 'predictions', flipped)
    with pytest.raises(StudyError, match='tested in bf16, and the file computes in fp32: train it again in fp32, with -p precision fp32 of run_study.ipynb'):
        export_certified(bf16, tmp_path/'m.pt2')
    assert not [*tmp_path.iterdir()]
