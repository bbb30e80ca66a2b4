"Every registered model: what it returns, what it learns from, how large it is, and that it learns."
import pytest, timm, torch
from dataclasses import replace
from imgstudy.core import StudyError, seed_everything
from imgstudy.data.split import load_data
from imgstudy.data.loaders import create_dls
from imgstudy.training.fit import fit
from imgstudy.training.learner import create_learner, param_groups, rate_scales
from imgstudy.models.register import classifier_names, count_params, create_model, layer_groups, models, weightless
from imgstudy.study.create import create_run
from imgstudy.models.zoo import create_light

# Parameters with so many classes. 1000 classes: as torchvision states them (convnext_*, vit_b_16, resnet18, mobilenet_*,
# efficientnet_v2_s), or timm's results file for those that torchvision lacks (vit_tiny, vit_small: 5.72 and 22.05 million; efficientnet_lite*: 4.65, 5.42 and 6.09). The others: by hand.
def convnext_by_hand(depths, dims, patch, n_out):
    "Stem with its norm, blocks of 8 d d + 58 d, norm and 2x2 convolution between stages, norm and classifier."
    down = sum(2*a + 4*a*b + b for a, b in zip(dims, dims[1:]))
    return (3*patch**2 + 3)*dims[0] + sum(n*(8*d*d + 58*d) for n, d in zip(depths, dims)) + down + 2*dims[-1] + (dims[-1] + 1)*n_out


vit_b, cn_t, cn_s, cn_b = (86_567_656, 1000), (28_589_128, 1000), (50_223_688, 1000), (88_591_464, 1000)
resnet18, mobilenetv2 = (11_689_512, 1000), (3_504_872, 1000)
parameters = dict(
    mlp_s=(3073*1500 + 1501*500 + 501*100 + 101*10, 10),
    mlp_l=(3073*2048 + 2049*1024 + 1025*512 + 513*256 + 257*128 + 129*64 + 65*32 + 33*16 + 17*10, 10),
    perceptron2=(3073*1024 + 1025*10, 10), perceptron3=(3073*1024 + 1025*1024 + 1025*10, 10),
    lenet5=(76*6 + 151*16 + 401*120 + 121*84 + 85*10, 10),       # of the paper's 61,706, C1 has three channels for one
    lenet5_relu=(76*6 + 151*16 + 401*120 + 121*84 + 85*10, 10),  # pooling and ReLU hold no parameters
    lenet5_bn=(76*6 + 151*16 + 2*16 + 401*120 + 121*84 + 85*84 + 85*10, 10),
    lenet_modern=(76*32 + 801*64 + 1025*256 + 257*10, 10),
    cnn3=(28*32 + 289*64 + 577*128 + 2049*512 + 513*40 + 41*10, 10),
    cnn_custom=(28*32 + 289*64 + 577*128 + 2049*512 + 513*10, 10),
    resnet9=(9*(3*64 + 64*128 + 2*128**2 + 128*256 + 256*512 + 2*512**2) + 2*(64 + 3*128 + 256 + 3*512) + 512*10, 10),
    vit=(49*30 + 30 + 65*30 + 6*(2*60 + 31*90 + 31*30 + 31*120 + 121*30) + 60 + 31*10, 10),
    vit_tiny=(5_717_416, 1000), vit_small=(22_050_664, 1000), vit_base=vit_b, vit_b16_in21k=vit_b,
    convnext=(convnext_by_hand((2, 2, 2, 2), (16, 32, 64, 128), 2, 10), 10),
    convnext_atto=(convnext_by_hand((2, 2, 6, 2), (40, 80, 160, 320), 4, 1000), 1000), convnext_tiny=cn_t, convnext_small=cn_s, convnext_base=cn_b,
    convnext_t_22k=cn_t, convnext_t_22k_1k=cn_t, convnext_t_1k=cn_t, convnext_s_22k=cn_s, convnext_b_22k=cn_b, convnext_b_22k_1k=cn_b,
    resnet18=resnet18, resnet18_tv=resnet18, resnet18_cntk_cut=resnet18, resnet18_cntk=(11_689_512 + 2*(9*512**2 + 2*512), 1000), mobilenetv2=mobilenetv2, mobilenetv2_keras=mobilenetv2,
    efficientnet_lite0=(4_652_008, 1000), efficientnet_lite1=(5_416_680, 1000), efficientnet_lite2=(6_092_072, 1000),
    mobilenetv3_s=(2_542_856, 1000), efficientnetv2_s=(21_458_488, 1000),
    resnet18_32=(11_689_512 - 147*64 + 27*64 - 990*513, 10), mobilenetv2_32=(3_504_872 - 990*1281, 10))

names = sorted(n for n in models if not n.startswith('timm:'))
side = 32                                                              # of the real images: 4 patches of 16, or the stem's least
heavy = [n for n in names if parameters.get(n, (0,))[0] > 3_200_000 or n == 'mobilenetv2_32'] # parameters, or work at this size
each = pytest.mark.parametrize('name', names)
light_first = pytest.mark.parametrize('name', [pytest.param(n, marks=pytest.mark.slow) if n in heavy else n for n in names])


def test_the_count_by_hand_is_right(): assert convnext_by_hand((3, 3, 9, 3), (96, 192, 384, 768), 4, 1000) == cn_t[0]


def test_every_model_has_its_size_here(): assert set(parameters) == set(names), 'type the published size of the new model'


@each
def test_size_and_shape_without_storage(name):
    "Published parameters; logits of the asked-for classes at the design size and at a smaller one."
    expected, n_out = parameters[name]
    net = create_light(name, n_out)
    assert count_params(net) == expected
    for size in (models[name].size, side):
        net = create_light(name, 7, size=size)
        assert tuple(net(torch.zeros(2, 3, size, size, device='meta')).shape) == (2, 7)


@each
def test_layer_groups_hold_each_parameter_once(name):
    net = create_light(name, 7)
    groups = layer_groups(net)
    assert sorted(sum(groups, [])) == sorted(n for n, _ in net.named_parameters())
    assert len(groups) > 1 and all(groups)
    ends = [p.shape[0] for n, p in net.named_parameters() if n in groups[-1] and p.ndim == 2]
    assert ends[-1:] == [7], 'the last group ends in the classifier'
    assert all(7 not in p.shape[:1] for n, p in net.named_parameters() if n not in groups[-1])


@light_first
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    net, x = create_model(name, 7, size=side), torch.randn(4, 3, side, side)
    out = net(x)
    out.square().mean().backward()
    bad = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert out.isfinite().all() and not bad
    with torch.no_grad(): together, alone = net.eval()(x), torch.cat([net(x[i:i+1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-4, rtol=1e-3), 'in evaluation an image must not see its neighbours'


@each
def test_sizes_that_cannot_be(name):
    "One pixel less than the least is refused, and the least works."
    least = models[name].min_size
    assert tuple(create_light(name, 7, size=least)(torch.zeros(2, 3, least, least, device='meta')).shape) == (2, 7)
    with pytest.raises(StudyError, match='at least'): create_light(name, 7, size=least - 1)


# what a dozen steps an epoch need to show something, where the recipe's rate is for other batches or for trained weights
small = dict(lr=3e-4)
settings = dict(vit=dict(size=8, bs=10, lr=2e-3), cnn3=dict(dropout=0.1), mobilenetv2=small, mobilenetv2_keras=small, mobilenetv2_32=small,
                vit_b16_in21k=small, mlp_l=dict(size=16, epochs=6)) | {n: dict(lr=1e-3) for n in names if n.startswith('convnext_') and '_22k' in n or n == 'convnext_t_1k'}


@light_first
def test_learns(name):
    "A few epochs of 200 digits from random weights: the training loss falls by more than a tenth."
    run = create_run(**dict(dataset='digits', model=name, size=side, subset=200, epochs=3, bs=16, schedule='flat', augment='none',
                            precision='fp32') | settings.get(name, {}))
    data = load_data(run)
    few = replace(data, items=data.items.groupby('split').head(200).reset_index(drop=True))
    seed_everything(0)
    learn = create_learner(run, create_dls(run, few))
    losses = [r['train_loss'] for r in fit(learn, run.recipe).rows]
    assert losses[-1] < 0.9*losses[0] and max(losses) < 10, losses


def check_groups(name):
    with weightless(): net = timm.create_model(name, num_classes=7)
    groups = layer_groups(net)
    assert sorted(n for g in groups for n in g) == sorted(n for n, _ in net.named_parameters()) and all(groups)
    assert len(groups) > 2 and set(groups[-1]) == set(classifier_names(net))


@pytest.mark.parametrize('name', ['rdnet_tiny', 'pit_ti_224', 'pit_s_distilled_224', 'convnextv2_atto', 'swin_tiny_patch4_window7_224', 'tf_efficientnet_lite0'])
def test_each_parameter_is_in_one_group(name): check_groups(name)


@pytest.mark.slow
def test_each_parameter_is_in_one_group_in_all_families_of_timm():
    families = {}
    for name in timm.list_models(): families.setdefault(timm.models._registry._model_to_module[name], name)
    for name in families.values(): check_groups(name)


@pytest.mark.parametrize('name,size', [('timm:rdnet_tiny', 64), ('timm:pit_ti_224', 224)])
def test_freezing_and_rates_by_layer_for(name, size):
    run = create_run(dataset='digits', model=name, size=size, tune='all', layer_decay=.7, frozen_epochs=1, epochs=2)
    net = create_light(name, 10, size=size)
    groups = param_groups(net, run.recipe)
    scales = rate_scales(groups, run.recipe)
    assert sum(len(g.params) for g in groups) == len([*net.parameters()]) and scales[0] < scales[-1] == 1


@pytest.mark.parametrize('model, layers', [('cnn3', 'a six-layer CNN'), ('cnn_custom', 'a five-layer CNN'), ('lenet5', 'LeNet-5'), ('resnet9', 'ResNet-9'),
                                           ('perceptron2', 'a perceptron of two layers'), ('perceptron3', 'a perceptron of three layers')])
def test_a_title_counts_the_layers_that_hold_weights(model, layers):
    from imgstudy.report.names import model_title
    assert model_title(model) == layers
    n = sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in create_model(model, 10).modules())
    assert {2: 'two', 3: 'three', 5: 'five', 6: 'six'}.get(n, '-') in layers or f'-{n}' in layers
