"Where weights come from, through `train`: every source, every architecture, and everything that can be wrong with a file."
import os, pickle
import numpy as np, pytest, timm, torch
from dataclasses import replace
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from imgstudy.models import weights as weighing
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.split import load_data
from imgstudy.data.loaders import create_dls
from imgstudy.training.learner import create_learner
from imgstudy.models.register import create_model, layer_groups, models
from imgstudy.records.record import read_record, verify_record
from imgstudy.training.train import train
from imgstudy.study.create import create_run
from imgstudy.models.weights import hub_weights, init_weights, load_weights

quick = dict(dataset='digits', subset=60, epochs=1, augment='none', precision='fp32', bs=20)


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    "An empty data root with a folder weights."
    monkeypatch.setenv('IMGSTUDY_DATA', str(tmp_path/'data'))
    (tmp_path/'data/weights').mkdir(parents=True)
    return tmp_path/'data'


def drawn(net, seed=9): # a state dict of other random numbers, norms' statistics among them
    torch.manual_seed(seed)
    return {k: torch.rand_like(v) + 0.1 if v.is_floating_point() else v for k, v in net.state_dict().items()}


def saved(state, path):
    save_file({k: v.contiguous() for k, v in state.items()}, path) if path.suffix == '.safetensors' else torch.save(state, path)
    return path


def initial(run): # the model before the first step, the same without weights, and the table of what arrived
    nets = []
    for r in (run, replace(run, init='scratch')):
        seed_everything(run.seed)
        nets.append(create_model(r.model, 10, size=r.size))
    table = init_weights(nets[0], run.init, run.model, [str(i) for i in range(10)]) # the classes of digits
    return *(net.state_dict() for net in nets), table


def body_of(model): # names of parameters and statistics before the classifier
    head = layer_groups(model)[-1]
    last = [n for n, p in model.named_parameters() if n in head][-2:]
    return [k for k in model.state_dict() if k not in last], last


def trained(runs_dir, **params): # the one finished record of a training
    record = train(create_run(**quick | params))
    verify_record(read_record(record.path))
    return record


# what arrives: (model, size here, size of the weights, timm's name or None for our own names)
cases = dict(lenet5=('lenet5', 16, 16, None), vit=('vit', 16, 32, None), vit_same=('vit', 16, 16, None),
             vit_timm=('vit_tiny', 32, 64, 'vit_tiny_patch16_224'), convnext_timm=('convnext_atto', 32, None, 'convnext_atto'),
             resnet18_32=('resnet18_32', 16, None, 'resnet18'), resnet18_32_own=('resnet18_32', 16, 16, None),
             mobilenetv2_32=('mobilenetv2_32', 16, None, 'mobilenetv2_100'))


def source(name, size, timms): # a network with 7 classes to take weights from
    return timm.create_model(timms, num_classes=7, **(dict(img_size=size) if size else {})) if timms else create_model(name, 7, size=size)


def expected(name, state, size, timms): # our names and shapes for `state`, by hand
    spec = models[name]
    ours = spec.convert(state) if timms and spec.convert else dict(state)
    if 'embed.pos' in ours: ours['embed.pos'] = resample_abs_pos_embed(ours['embed.pos'], [size//(4 if name == 'vit' else 16)]*2)
    if name == 'resnet18_32' and timms: ours['conv1.weight'] = ours['conv1.weight'][:, :, 2:5, 2:5]
    return ours


@pytest.mark.parametrize('ext', ['.safetensors', '.pth'])
@pytest.mark.parametrize('case', cases)
def test_a_file_fills_everything_but_the_head(case, ext, tmp_path):
    "Loaded exactly; the classifier of 7 classes is left, and the one for 10 is what the seed draws."
    name, size, theirs, timms = cases[case]
    state = drawn(source(name, theirs, timms))
    run = create_run(**quick, model=name, size=size, init=f'file:{saved(state, tmp_path/f"w{ext}")}')
    got, scratch, table = initial(run)
    body, last = body_of(create_model(name, 10, size=size))
    want = expected(name, state, size, timms)
    assert all(torch.equal(got[k], want[k]) for k in body), [k for k in body if not torch.equal(got[k], want[k])]
    assert all(torch.equal(got[k], scratch[k]) and got[k].shape[0] == 10 for k in last)
    assert list(table.index[table.status == 'new head']) == last and not (table.status == 'missing').any()


@pytest.mark.parametrize('wrap', [lambda s: dict(state_dict=s, epoch=3), lambda s: dict(model={f'module.{k}': v for k, v in s.items()}), lambda s: {k: v.double() for k, v in s.items()}])
def test_a_file_as_a_training_script_saves_it(wrap, tmp_path):
    state = drawn(create_model('lenet5', 7, size=16))
    got, _, _ = initial(create_run(**quick, model='lenet5', size=16, init=f'file:{saved(wrap(state), tmp_path/"w.pth")}'))
    assert all(torch.equal(v, got[k]) for k, v in state.items() if not k.startswith('output'))


@pytest.mark.parametrize('name', ['lenet5_bn', 'vit', 'mobilenetv2_32'])
def test_how_a_new_head_is_drawn(name, tmp_path):
    "Only where no weights are given for it, and nothing before it."
    def net(params):
        run = create_run(**quick, model=name, size=32, init=f'file:{path}', **params)
        seed_everything(3)
        return create_learner(run, dls).model.state_dict()
    state = drawn(create_model(name, 7, size=32))
    path, dls = saved(state, tmp_path/'w.pth'), create_dls(run := create_run(**quick, model=name, size=32), load_data(run))
    body, (weight, bias) = body_of(create_model(name, 10, size=32))
    own, asked, zero, glorot = (net(p) for p in ({}, dict(head_init='own'), dict(head_init='zero'), dict(head_init='glorot')))
    assert all(torch.equal(n[k], state[k]) for n in (own, asked, zero, glorot) for k in body)
    usual = glorot if 'head_init' in models[name].recipe else asked # MobileNets are not drawn as timm does
    assert all(torch.equal(own[k], usual[k]) for k in own) and asked[weight].std() > 0 and not zero[weight].any() and not zero[bias].any() and not glorot[bias].any()
    n_out, n_in = glorot[weight].shape
    bound = (6/(n_in + n_out))**.5 # Glorot and Bengio 2010, equation 16
    assert bound*.95 < glorot[weight].abs().max() <= bound and abs(glorot[weight].std()/bound*3**.5 - 1) < .1
    same = create_run(**quick, model=name, size=32, head_init='zero')
    record = train(same, root=tmp_path/'runs')
    taken = create_learner(create_run(**quick, model=name, size=32, head_init='zero', init=f'run:{record.path}'), dls).model.state_dict()
    assert torch.equal(taken[weight], load_file(record.path/'weights.safetensors')[weight]) and taken[weight].any()


@pytest.mark.parametrize('case', ['lenet5', 'vit', 'resnet18_32'])
def test_a_run_that_starts_from_a_file(case, runs_dir, tmp_path):
    "The head alone trains, so that the record's weights still hold what the file gave."
    name, size, theirs, timms = cases[case]
    state = {k: v for k, v in source(name, theirs, timms).state_dict().items()}
    record = trained(runs_dir, model=name, size=size, tune='head', init=f'file:{saved(state, tmp_path/"w.pth")}')
    got, want = load_file(record.path/'weights.safetensors'), expected(name, state, size, timms)
    head = set(layer_groups(create_model(name, 10, size=size))[-1])
    assert all(torch.equal(got[k], want[k]) for k in got if k not in head)
    said = read_record(record.path).info
    assert len(said['init']['new_head']) == 2 and not said['init'].get('missing') and len(said['init']['digest']) == 16
    assert said['model']['trained'] == sum(got[k].numel() for k in head) < said['model']['parameters']


@pytest.mark.parametrize('name, timms', [('resnet18_32', 'resnet18'), ('vit_tiny', 'vit_tiny_patch16_224'), ('convnext_atto', 'convnext_atto'),
                                         ('timm:test_resnet.r160_in1k', 'test_resnet'), ('mobilenetv2_keras', 'mobilenetv2_100')])
@pytest.mark.parametrize('ext', ['.safetensors', '.pth'])
def test_imagenet_from_a_file_under_the_data_root(name, timms, ext, data_dir):
    "Weights of 1000 classes under timm's name; images are prepared as timm says for them."
    state = drawn(timm.create_model(timms))
    saved(state, data_dir/'weights'/f'{models[name].weights}{ext}')
    size = 32 if not name.startswith('timm') else 160
    run = create_run(**quick, model=name, size=size, init='imagenet')
    got, scratch, table = initial(run)
    body, last = body_of(create_model(name, 10, size=size))
    want = expected(name, state, size, True)
    assert all(torch.equal(got[k], want[k]) for k in body) and all(torch.equal(got[k], scratch[k]) for k in last)
    cfg = timm.get_pretrained_cfg(models[name].weights) if name != 'mobilenetv2_keras' else None
    assert run.normalize == ('half' if cfg is None or cfg.mean[0] == 0.5 else 'imagenet')
    assert cfg is None or run.interpolation == cfg.interpolation


def test_the_answers_of_timm_survive_the_way_through_a_file(data_dir):
    "Logits of timm's own network with the same weights, at the size they are for."
    for name, timms in (('vit_tiny', 'vit_tiny_patch16_224'), ('convnext_atto', 'convnext_atto')):
        torch.manual_seed(1)
        theirs = timm.create_model(timms, num_classes=10).eval()
        saved(theirs.state_dict(), data_dir/'weights'/f'{models[name].weights}.safetensors')
        ours = create_model(name, 10).eval()
        load_weights(ours, hub_weights(models[name].weights), name, head=True)
        x = torch.randn(1, 3, 224, 224)
        with torch.no_grad(): assert torch.allclose(ours(x), theirs(x), atol=1e-4)


def test_from_a_run(runs_dir):
    "By id and by folder, everything arrives."
    first = trained(runs_dir, model='lenet5', size=16)
    want = load_file(first.path/'weights.safetensors')
    for said in (first.id, str(first.path)):
        got, _, table = initial(create_run(**quick, model='lenet5', size=16, init=f'run:{said}', seed=3))
        assert all(torch.equal(got[k], v) for k, v in want.items()) and set(table.status) == {'loaded'}
    second = trained(runs_dir, model='lenet5', size=16, init=f'run:{first.id}', seed=3)
    assert second.info['init']['counts'] == {'loaded': len(want)} and second.id != first.id


def test_a_head_for_other_classes_is_redrawn(runs_dir):
    "0 to 4 and 5 to 9 are five classes each; what the old head says of them is wrong."
    low = train(create_run(**quick | dict(dataset='digits_low', model='lenet5', size=16)))
    run = create_run(**quick | dict(dataset='digits_high', model='lenet5', size=16, init=f'run:{low.id}'))
    seed_everything(0)
    learn = create_learner(run, create_dls(run, load_data(run)))
    assert not torch.equal(learn.model.output.weight, load_file(low.path/'weights.safetensors')['output.weight'])


def test_what_was_learnt_is_of_use(runs_dir):
    "Many digits, then 50 of them and other seeds: far more accurate than from scratch with the same 50, on average over three seeds."
    base = dict(dataset='digits', model='lenet5', size=16, augment='none', precision='fp32')
    first = train(create_run(epochs=6, bs=20, subset=800, **base))
    few = dict(epochs=2, lr=1e-3, bs=10, subset=50, **base)
    data = load_data(create_run(**few))
    means = [np.mean([train(create_run(init=init, seed=s, **few), data).metrics['accuracy'] for s in (1, 2, 3)])
             for init in ('scratch', f'run:{first.id}')]
    assert means[1] > means[0] + 0.15 and means[1] > first.metrics['accuracy'] - 0.1, means


# what can be wrong

class Touch:
    "A pickle that runs code when it is read."
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return os.system, (f'touch {self.path}',)


def broken(folder): # name: (file, what the message says)
    folder.mkdir()
    state = drawn(create_model('lenet5', 10, size=16))
    good = {ext: saved(state, folder/f'good{ext}').read_bytes() for ext in ('.safetensors', '.pth')}
    made = {f'truncated{ext}': b[:len(b)//2] for ext, b in good.items()} | {f'corrupt{ext}': b'\x13' * 500 for ext in good}
    made |= {f'empty{ext}': b'' for ext in good} | {'code.pth': pickle.dumps(Touch(folder/'ran')), 'text.bin': b'not weights\n', 'good.zip': good['.pth']}
    made['shortened.safetensors'] = good['.safetensors'][:-4]
    for name, content in made.items(): (folder/name).write_bytes(content)
    saved(drawn(create_model('cnn3', 10)), folder/'other_architecture.pth')
    saved(drawn(timm.create_model('test_vit')), folder/'timms_vit.safetensors')
    saved(state | {'C3.0.bias': state['C3.0.bias']*torch.nan}, folder/'nan.pth')
    saved(state | {'C3.0.bias': state['C3.0.bias']/0}, folder/'infinite.safetensors')
    saved({}, folder/'no_tensors.pth')
    saved([1, 2], folder/'a_list.pth')
    saved(dict(x=3, y='z'), folder/'no_state.pth')
    torch.save(create_model('lenet5', 10, size=16), folder/'whole_model.pth')
    torch.save(dict(state_dict=state, code=Touch(folder/'ran')), folder/'code_inside.pth')
    (folder/'a_folder.pth').mkdir()
    return folder


messages = {
    'truncated.safetensors': 'cannot be read as weights', 'truncated.pth': 'cannot be read as weights', 'corrupt.safetensors': 'cannot be read as weights',
    'corrupt.pth': 'cannot be read as weights', 'empty.safetensors': 'cannot be read as weights', 'empty.pth': 'cannot be read as weights',
    'shortened.safetensors': 'cannot be read as weights', 'text.bin': 'cannot be read as weights', 'code.pth': 'save only its state_dict',
    'code_inside.pth': 'save only its state_dict', 'whole_model.pth': 'save only its state_dict', 'a_list.pth': 'cannot be read as weights',
    'no_tensors.pth': 'holds no tensors', 'no_state.pth': 'holds no tensors', 'good.zip': 'should end in .safetensors', 'nan.pth': "NaN or infinite values in 'C3.0.bias'",
    'infinite.safetensors': "NaN or infinite values in 'C3.0.bias'", 'other_architecture.pth': 'The weights are not for lenet5',
    'timms_vit.safetensors': 'The weights are not for lenet5', 'a_folder.pth': 'There is no weights file', 'missing.pth': 'There is no weights file',
    '': 'There is no weights file'}


@pytest.fixture(scope='module')
def broken_files(tmp_path_factory): return broken(tmp_path_factory.mktemp('weights')/'broken')


def refused(runs_dir, message, **params): # what a training that cannot be leaves behind
    with pytest.raises(StudyError) as e: train(create_run(**quick | params))
    said = str(e.value)
    assert message in said and '\n' not in said.strip() and len(said) < 900, said
    left = [read_record(p.parent) for p in runs_dir.glob('*/record.json')]
    assert all(r.outcome == 'failed' and r.error == f'StudyError: {said}' for r in left)
    assert not list(runs_dir.glob('*/weights.safetensors'))


@pytest.mark.parametrize('name', messages)
def test_files_that_are_no_weights(name, broken_files, runs_dir):
    refused(runs_dir, messages[name], model='lenet5', size=16, init=f'file:{broken_files/name}')
    assert not (broken_files/'ran').exists(), 'a file of weights must never run code'


@pytest.mark.parametrize('model, other, size', [('vit', 'vit_tiny', 32), ('convnext', 'lenet5', 32), ('resnet18_32', 'cnn3', 32), ('vit', 'convnext', 32),
                                                ('mlp_s', 'mlp_l', 8), ('lenet5', 'lenet_modern', 16)])
def test_weights_of_another_architecture(model, other, size, runs_dir, tmp_path):
    path = saved(create_model(other, 10, size=size).state_dict(), tmp_path/'w.safetensors')
    refused(runs_dir, f'The weights are not for {model}', model=model, size=size, init=f'file:{path}')


def test_runs_that_give_no_weights(runs_dir):
    refused(runs_dir, "There is no record 'digits-lenet5-s0-00000000'", model='lenet5', size=16, init='run:digits-lenet5-s0-00000000')
    first = trained(runs_dir, model='lenet5', size=16)
    (first.path/'weights.safetensors').unlink()
    with pytest.raises(StudyError, match='holds no weights'): train(create_run(**quick, model='lenet5', size=16, init=f'run:{first.id}'))
    with pytest.raises(StudyError, match=f"Did you mean '{first.id}'"): train(create_run(**quick, model='lenet5', size=16, init=f'run:{first.id[:-1]}x'))


@pytest.mark.parametrize('params, message', [
    (dict(model='vit', size=30), 'set size=28 or size=32'), (dict(model='vit_tiny', size=40), 'set size=32 or size=48'),
    (dict(model='vit_tiny', size=15), 'at least 16'), (dict(model='lenet5', size=12), 'at least 16'), (dict(model='convnext', size=8), 'at least 16'),
    (dict(model='resnet18', size=16), 'at least 32'), (dict(model='timm:vit_tiny_patch16_224', size=100), 'set size=96 or 112'),
    (dict(model='lenet5', tta=2), '`tta` averages'), (dict(model='lenet5', dropout=0.2), 'lenet5 takes no dropout'),
    (dict(model='resnet9', dropout=0.2), 'resnet9 takes no dropout'), (dict(model='lenet5', folds=3, fold=3), 'counts from 0'),
    (dict(model='lenet5', folds=3, fold=-1), '`fold` must be greater than or equal to 0'), (dict(model='lenet5', init='imagnet'), "'imagenet', 'file:PATH' or 'run:ID'"),
    (dict(model='lenet5', init='file:'), "'imagenet', 'file:PATH' or 'run:ID'"), (dict(model='lenet5', init='imagenet'), 'has no published ImageNet weights'),
    (dict(model='lenet5', folds=300, fold=0), '300 folds need 300 images of each class'), (dict(model='lenet5', folds=3), 'does not say which'),
    (dict(model='timm:resnet18d.made_up'), 'There is no timm model')])
def test_what_is_refused(params, message, runs_dir): refused(runs_dir, message, **dict(size=16) | params)


def test_more_folds_than_images_of_a_class(runs_dir, tmp_path):
    for c in 'ab':
        (tmp_path/'photos'/c).mkdir(parents=True)
        for i in range(4): Image.fromarray(np.full((20, 20, 3), 40*i + ord(c), np.uint8)).save(tmp_path/f'photos/{c}/{i}.png')
    refused(runs_dir, "5 folds need 5 images of each class, but 'a' has only 4", dataset=f'folder:{tmp_path}/photos', model='lenet5', size=16,
            folds=5, fold=0, subset=None)


def test_no_network(runs_dir, data_dir, monkeypatch):
    "The message names the file to supply, where to get it and where to put it, at once."
    asked = []
    def closed(*args, **kwargs):
        asked.append(args)
        raise OSError('Network is unreachable')
    monkeypatch.setattr(weighing, 'urlopen', closed)
    monkeypatch.setattr(weighing, 'try_to_load_from_cache', lambda *args: None)
    monkeypatch.setenv('IMGSTUDY_CACHE', os.environ.get('IMGSTUDY_CACHE') or str(data_dir.parent/'cache'))
    refused(runs_dir, 'mobilenetv3_small_100.lamb_in1k.safetensors', model='mobilenetv3_s', size=32, init='imagenet')
    with pytest.raises(StudyError) as e: train(create_run(**quick, model='mobilenetv3_s', size=32, init='imagenet'))
    assert len(asked) <= 2 # no address is tried again
    for part in ('https://huggingface.co/timm/mobilenetv3_small_100.lamb_in1k', str(data_dir/'weights'), "init='file:PATH'", 'Network is unreachable'):
        assert part in str(e.value)
