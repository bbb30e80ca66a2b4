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
