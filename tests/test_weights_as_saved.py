"The same network, saved as people save it; similar networks, which must not be taken in part."
import argparse, pathlib
import numpy as np, pytest, timm, torch, torchvision
from imgstudy.core import StudyError
from imgstudy.models.register import classifier_names, create_model
from imgstudy.models.weights import describe_init, init_weights, read_weights
from imgstudy.models import zoo # registers all models


@pytest.fixture(scope='module')
def saved():
    "A small ResNet with statistics, its state, the state of another, and an image batch."
    return sound('test_resnet')


def sound(arch):
    torch.manual_seed(0)
    net = timm.create_model(arch, num_classes=1000).eval()
    for m in net.modules():
        if isinstance(m, torch.nn.BatchNorm2d): m.running_mean.normal_(0, .1), m.running_var.uniform_(.5, 1.5)
    state = net.state_dict()
    return net, state, {k: v + .01 if v.is_floating_point() else v for k, v in state.items()}, torch.randn(2, 3, 64, 64)


def inside(prefix, state): return {prefix + k: v for k, v in state.items()}


adam = dict(state={i: dict(step=torch.tensor(1.), exp_avg=torch.ones(3), exp_avg_sq=torch.ones(3)) for i in range(62)}, param_groups=[dict(lr=.1)])
prefixes = ['', 'module.', '_orig_mod.', 'module._orig_mod.', '_orig_mod.module.', 'model.', 'net.', 'backbone.', 'timm_model.', 'encoder.',
            'model.backbone.', 'module.model.net.', '_forward_module.model.', 'feature_extractor.', 'student.backbone.', 'model._orig_mod.']
containers = {
    'state_dict': lambda s, o: dict(state_dict=s, epoch=1, optimizer=adam), 'model': lambda s, o: dict(model=s, opt=adam),
    'net': lambda s, o: dict(net=s, acc=94., epoch=199), 'weights': lambda s, o: dict(weights=s), 'model_state': lambda s, o: dict(model_state=s, cfg='x'),
    'params': lambda s, o: dict(params=s), 'network in checkpoint': lambda s, o: dict(checkpoint=dict(network=s)), 'list': lambda s, o: [s],
    'numpy': lambda s, o: {k: v.numpy() for k, v in s.items()}, 'only ema': lambda s, o: dict(state_dict_ema=s), 'only model_ema': lambda s, o: dict(model_ema=s),
    'ema.module': lambda s, o: dict(ema=dict(module=s)), 'timm': lambda s, o: dict(state_dict=s, args=argparse.Namespace(lr=.1), metric=np.float64(.5)),
    'paths': lambda s, o: dict(state_dict=s, hyper_parameters=dict(root=pathlib.PurePosixPath('a'), scores=np.ones(3))), 'averaged': lambda s, o: inside('module.', s) | dict(n_averaged=torch.tensor(9)),
    'loss weights': lambda s, o: dict(state_dict=inside('model.', s) | {'loss.weight': torch.ones(5)}), 'parameters': lambda s, o: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
}
averages = {
    'state_dict_ema': lambda s, o: dict(state_dict=o, state_dict_ema=s), 'model_ema': lambda s, o: dict(model=o, model_ema=s), 'ema first': lambda s, o: dict(ema=s, net=o),
    'params_ema': lambda s, o: dict(params=o, params_ema=s), 'teacher': lambda s, o: dict(student=inside('module.backbone.', o), teacher=inside('backbone.', s)),
    'one dict': lambda s, o: dict(state_dict=inside('model.', o) | inside('ema_model.module.', s)), 'swa': lambda s, o: dict(model=o, swa_model=inside('module.', s)),
}


def arrives(what, saved, path, capsys, name='timm:test_resnet'):
    "Whether the network has the features of the one that was saved; what was printed."
    torch.save(what, path)
    net = create_model(name, 5, size=64).eval()
    table = init_weights(net, f'file:{path}', name)
    assert table.status.value_counts().to_dict() == {'loaded': len(saved[1]) - 2, 'new head': 2}
    return torch.equal(net.forward_features(saved[3]), saved[0].forward_features(saved[3])), capsys.readouterr().out, table


@pytest.mark.parametrize('prefix', prefixes)
def test_prefixes_are_found(prefix, saved, tmp_path, capsys):
    same, said, table = arrives(dict(state_dict=inside(prefix, saved[1])), saved, tmp_path/'a.ckpt', capsys)
    assert same and not said


@pytest.mark.parametrize('name', containers)
def test_containers_are_found(name, saved, tmp_path, capsys):
    same, said, table = arrives(containers[name](saved[1], saved[2]), saved, tmp_path/'a.pth.tar', capsys)
    assert same and not said


@pytest.mark.parametrize('name', averages)
def test_a_moving_average_is_taken_and_said(name, saved, tmp_path, capsys):
    same, said, table = arrives(averages[name](saved[1], saved[2]), saved, tmp_path/'a.pth', capsys)
    assert same and 'was loaded, a moving average; ' in said and 'would fit as well' in said
    assert describe_init(table)['place'] in said


def test_a_plain_file_is_recorded_as_ever(saved, tmp_path, capsys):
    for i, what in enumerate((saved[1], inside('module.', saved[1]))):
        same, said, table = arrives(what, saved, tmp_path/f'{i}.pth', capsys)
        assert same and ('place' in describe_init(table)) == bool(i)
        assert read_weights(tmp_path/f'{i}.pth').keys() == saved[1].keys()


@pytest.mark.parametrize('wrap', [lambda s: dict(model=s, opt=adam), lambda s: s, lambda s: inside('module.', s)], ids=['save', 'plain', 'parallel'])
def test_fastai_s_body_and_head(wrap, tmp_path, capsys):
    "A body of numbered modules, as `create_body` cuts it from torchvision's, and a head with batch norms."
    theirs, saved = torchvision.models.resnet18(), sound('resnet18')
    theirs.load_state_dict(saved[1])
    body, head = torch.nn.Sequential(*list(theirs.children())[:-2]), torch.nn.Sequential(torch.nn.BatchNorm1d(1024), torch.nn.Linear(1024, 5))
    same, said, table = arrives(wrap(torch.nn.Sequential(body, head).state_dict()), saved, tmp_path/'a.pth', capsys, 'resnet18')
    assert same


def test_fastai_s_body_of_a_longer_network_is_not_taken(tmp_path):
    theirs = timm.create_model('resnet18', layers=(2, 2, 2, 3))
    body = torch.nn.Sequential(*list(theirs.children())[:-2])
    torch.save(dict(model=torch.nn.Sequential(body, torch.nn.Sequential(torch.nn.Linear(512, 5))).state_dict()), tmp_path/'a.pth')
    with pytest.raises(StudyError, match='The weights are not for resnet18'): init_weights(create_model('resnet18', 5), f'file:{tmp_path/"a.pth"}', 'resnet18')


wrong = [('resnet18', 'timm:resnet34'), ('resnet34', 'resnet18'), ('resnet18', 'timm:seresnet18'), ('convnextv2_atto', 'convnext_atto'),
         ('regnetx_002', 'timm:regnety_002'), ('resnet18', 'timm:resnet18d'), ('resnet14t', 'timm:resnet26t'), ('convnext_atto', 'timm:convnext_atto_ols'),
         ('mobilenetv3_small_075', 'mobilenetv3_s'), ('efficientnet_b0', 'timm:efficientnet_b1'), ('vit_tiny_patch16_224', 'timm:deit_tiny_distilled_patch16_224'),
         ('deit_tiny_distilled_patch16_224', 'timm:vit_tiny_patch16_224'), ('deit_tiny_distilled_patch16_224', 'vit_tiny')]


@pytest.mark.parametrize('theirs, ours', wrong)
def test_a_similar_network_is_refused(theirs, ours, tmp_path):
    torch.save(timm.create_model(theirs, num_classes=10).state_dict(), tmp_path/'a.pth')
    net = create_model(ours, 5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(StudyError, match=f'The weights are not for {ours} .*The file has ') as e: init_weights(net, f'file:{tmp_path/"a.pth"}', ours)
    assert 'invalid for input' not in str(e.value), 'the words of PyTorch say nothing about the file'
    assert len(str(e.value)) < 900 and all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize('arch, name', [('resnet18', 'resnet18'), ('mobilenetv3_small_100', 'mobilenetv3_s'), ('vit_tiny_patch16_224', 'vit_tiny'), ('convnext_atto', 'convnext_atto')])
def test_a_grey_network_sees_a_grey_picture_as_before(arch, name, tmp_path, capsys):
    torch.manual_seed(0)
    grey = timm.create_model(arch, num_classes=10, in_chans=1).eval()
    state = grey.state_dict()
    torch.save(state, tmp_path/'a.pth')
    ours, theirs = create_model(name, 10).eval(), timm.create_model(arch, num_classes=10).eval()
    init_weights(ours, f'file:{tmp_path/"a.pth"}', name)
    assert 'its filters were converted' in capsys.readouterr().out
    first = next(k for k, v in state.items() if v.ndim == 4)
    theirs.load_state_dict(state | {first: state[first].repeat(1, 3, 1, 1)/3})
    torch.save(theirs.state_dict(), tmp_path/'b.pth')
    init_weights(again := create_model(name, 10).eval(), f'file:{tmp_path/"b.pth"}', name)
    assert all(torch.equal(a, again.state_dict()[k]) for k, a in ours.state_dict().items() if k not in classifier_names(ours))
    if name == 'resnet18':
        x = torch.rand(2, 1, 64, 64)
        with torch.no_grad(): assert torch.allclose(ours.forward_features(x.expand(-1, 3, -1, -1)), grey.forward_features(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('channels', [2, 4, 5])
def test_other_channels_are_refused(channels, tmp_path):
    torch.save(timm.create_model('resnet18', in_chans=channels).state_dict(), tmp_path/'a.pth')
    with pytest.raises(StudyError, match=f'conv1.weight 64x{channels}x7x7 instead of 64x3x7x7'): init_weights(create_model('resnet18', 5), f'file:{tmp_path/"a.pth"}', 'resnet18')


def test_a_dense_layer_for_another_size_is_named(tmp_path, capsys):
    torch.save(create_model('lenet5', 10, size=32).state_dict(), tmp_path/'a.pth')
    init_weights(create_model('lenet5', 5, size=64), f'file:{tmp_path/"a.pth"}', 'lenet5')
    assert 'keep their initial values: C5.1.weight 120x' in capsys.readouterr().out


def test_heads_and_leftovers_of_training_do_not_matter(saved, tmp_path, capsys):
    extra = {'projector.0.weight': torch.ones(9, 9), 'head_dist.weight': torch.ones(9, 512), 'queue': torch.ones(4, 4), 'layer1.0.total_ops': torch.ones(1)}
    torch.save(saved[1] | extra, tmp_path/'a.pth')
    net = create_model('timm:test_resnet', 5, size=64).eval()
    table = init_weights(net, f'file:{tmp_path/"a.pth"}', 'timm:test_resnet')
    assert table.status.value_counts().to_dict() == {'loaded': len(saved[1]) - 2, 'new head': 2, 'unexpected': 4}
    with torch.no_grad(): assert torch.equal(net.forward_features(saved[3]), saved[0].forward_features(saved[3]))


def test_a_whole_model_is_refused_by_name(saved, tmp_path):
    torch.save(saved[0], tmp_path/'a.pth')
    with pytest.raises(StudyError, match='an object of timm.models.resnet.ResNet'): read_weights(tmp_path/'a.pth')


def test_an_array_of_objects_is_refused(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.ones(2)), x=np.array([print, 'x'], dtype=object)), tmp_path/'a.pth')
    with pytest.raises(StudyError, match='cannot be read as weights'): read_weights(tmp_path/'a.pth')


def integer(v, dtype=torch.int8): return (v*127/v.abs().max().clip(1e-9)).round().to(dtype) if v.ndim > 1 else v


whole = {'int8.pth': torch.int8, 'uint8.pt': torch.uint8, 'int32.bin': torch.int32, 'int8.safetensors': torch.int8}


@pytest.mark.parametrize('name', whole)
def test_whole_numbers_without_a_scale_are_no_weights(name, saved, tmp_path):
    from safetensors.torch import save_file
    state = {k: integer(v, whole[name]).contiguous() for k, v in saved[1].items()}
    (save_file if name.endswith('safetensors') else torch.save)(state, tmp_path/name)
    kind = str(whole[name]).removeprefix('torch.')
    with pytest.raises(StudyError, match=f'{name} holds {kind} in .*weight.*before they were quantised'):
        init_weights(create_model('timm:test_resnet', 5, size=64), f'file:{tmp_path/name}', 'timm:test_resnet')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('way', ['sparse', 'half', 'double', 'quantised', 'float8'])
def test_numbers_of_other_kinds_are_read(way, saved, tmp_path):
    other = dict(sparse=lambda v: v.to_sparse() if v.ndim > 1 else v, half=torch.Tensor.half, double=torch.Tensor.double, float8=lambda v: v.to(torch.float8_e5m2),
                 quantised=lambda v: torch.quantize_per_tensor(v, float(v.abs().max()/127) or 1, 0, torch.qint8) if v.ndim > 1 else v)[way]
    torch.save({k: other(v) if v.is_floating_point() else v for k, v in saved[1].items()}, tmp_path/'a.pth')
    net = create_model('timm:test_resnet', 5, size=64)
    init_weights(net, f'file:{tmp_path}/a.pth', 'timm:test_resnet')
    k = max((k for k, v in saved[1].items() if v.ndim == 4), key=lambda k: saved[1][k].numel())
    assert (net.state_dict()[k] - saved[1][k]).abs().max() <= .13*saved[1][k].abs().max()


def test_tensors_without_values(saved, tmp_path):
    torch.save({k: v.to('meta') for k, v in saved[1].items()}, tmp_path/'a.pth')
    with pytest.raises(StudyError, match='holds names and shapes, but no values'):
        init_weights(create_model('timm:test_resnet', 5, size=64), f'file:{tmp_path}/a.pth', 'timm:test_resnet')


@pytest.mark.parametrize('name', ['A.PTH', 'a.Pt', 'A.CKPT', 'a.SafeTensors', 'torch.safetensors', 'safetensors.pth'])
def test_endings_in_capitals_and_swapped(name, saved, tmp_path):
    "What a file holds is known by its content."
    from safetensors.torch import save_file
    save = save_file if name in ('a.SafeTensors', 'safetensors.pth') else torch.save
    save({k: v.contiguous() for k, v in saved[1].items()}, tmp_path/name)
    net = create_model('timm:test_resnet', 5, size=64)
    assert (init_weights(net, f'file:{tmp_path/name}', 'timm:test_resnet').status == 'loaded').sum() > 50


@pytest.mark.parametrize('ending', ['.pth', '.safetensors', '.BIN'])
@pytest.mark.parametrize('data, says', [(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n', 'git lfs pull'), (b'\n<!DOCTYPE html>', 'web page'), (b'', 'it is empty')])
def test_what_was_downloaded_instead(ending, data, says, tmp_path):
    from imgstudy.quick import check_run
    (tmp_path/f'a{ending}').write_bytes(data)
    for ask in (lambda f: read_weights(f), lambda f: check_run(dataset='digits', model='lenet5', init=f'file:{f}')):
        with pytest.raises(StudyError, match=says): ask(tmp_path/f'a{ending}')
