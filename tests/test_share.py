"A shared folder is read back by those it is for: timm, the Hub's cards, pandas and mlcroissant; it says nothing of its owner."
import builtins, json
import numpy as np, pytest
from PIL import Image
from imgstudy import cli
from imgstudy.core import StudyError
from imgstudy.share import write_model
from imgstudy.study.create import create_run
from imgstudy.training.train import train

mlcroissant = pytest.importorskip('mlcroissant', reason="needs pip install 'imgstudy[share]'")
pd = pytest.importorskip('pandas')


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    "The record of photographs of one's own, and its folder."
    home = tmp_path_factory.mktemp('home of anna')
    rng = np.random.default_rng(0)
    for c in ('bird', 'dog'):
        for i in range(20):
            path = home/f'holiday/{c}/anna {i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    with pytest.MonkeyPatch.context() as m:
        m.setenv('IMGSTUDY_RUNS', str(home/'runs'))
        run = create_run(dataset=f'folder:{home}/holiday', model='timm:test_resnet', init='scratch', size=32, epochs=1, augment='none', bs=8)
        record = train(run)
        cli.answer(['share', record.id, str(home/'out')])
    return record, home/'out', home


def test_timm_builds_the_network_from_the_folder(shared):
    import timm, torch
    from imgstudy.predict import load_predictor
    record, out, _ = shared
    x = torch.rand(3, 3, 32, 32)
    p = load_predictor(record)
    net = timm.create_model(f'local-dir:{out}', pretrained=True).eval()
    cfg = net.pretrained_cfg
    mean, std = (torch.tensor(cfg[k])[None, :, None, None] for k in ('mean', 'std'))
    with torch.no_grad(): assert torch.allclose(net((x - mean)/std), p.model(x), atol=1e-4)
    assert [*cfg['label_names']] == ['bird', 'dog'] if 'label_names' in cfg else '"label_names"' in (out/'config.json').read_text()


def test_the_card_is_read_by_the_hub(shared):
    from huggingface_hub import ModelCard
    record, out, _ = shared
    data = ModelCard.load(out/'README.md').data
    found = {e.metric_type: (e.metric_value, e.dataset_split, e.dataset_name) for e in data.eval_results}
    assert found['accuracy'] == (round(record.metrics['accuracy'], 6), 'test', 'Images of their owner')
    assert data.pipeline_tag == 'image-classification' and not (out/'.eval_results').exists()


def test_predictions_and_images_are_read_back(shared):
    record, out, _ = shared
    t = pd.read_parquet(out/'predictions.parquet')
    assert len(t) == record.metrics['n'] and (t.label == t.prediction).mean() == record.metrics['accuracy']
    images = [*mlcroissant.Dataset(str(out/'croissant.json')).records('images')]
    assert len(images) == 40 and {i['images/image'].decode() for i in images} >= {*t.image}


def test_nothing_tells_of_the_owner(shared):
    _, out, home = shared
    for p in out.rglob('*'):
        if p.is_file():
            content = p.read_bytes()
            for word in (str(home).encode(), b'anna', b'holiday'): assert word not in content, (p.name, word)


def test_bad_calls_leave_nothing(shared, monkeypatch, tmp_path):
    record, out, home = shared
    monkeypatch.setenv('IMGSTUDY_RUNS', str(home/'runs'))
    for words, says in ((['none', tmp_path/'o'], 'There'), ([record.id, out], 'exists already'),
                        ([record.id, tmp_path/'o', '--dataset-id', 'a b/c/d'], 'no name of a data set')):
        with pytest.raises(StudyError, match=says): cli.answer(['share', *map(str, words)])
    real = builtins.__import__
    def missing(name, *args, **kw):
        if name == 'mlcroissant': raise ImportError(name)
        return real(name, *args, **kw)
    monkeypatch.setattr(builtins, '__import__', missing)
    with pytest.raises(StudyError, match=r'imgstudy\[share\]'): cli.answer(['share', record.id, str(tmp_path/'o')])
    assert not (tmp_path/'o').exists()


@pytest.mark.parametrize('name, init, licence', [('resnet18_cntk_cut', 'mit', 'mit'), ('resnet18', None, None), ('resnet18_cntk', 'mit', 'mit')])
def test_the_terms_are_those_of_the_weights_not_of_timm_s(name, init, licence, tmp_path):
    "A network with weights of Microsoft's, or with its own, is not licensed by timm, whose configuration said so."
    from imgstudy.models.register import create_model
    from imgstudy.records.record import write_record
    from imgstudy.stats.seeds import synth_record
    record, whose = synth_record(0, .8), dict(weights=dict(name='resnet18_2223.imagenet', source='Microsoft', licence=init)) if init else {}
    record.run = create_run(dataset='digits', model=name, size=32, init='imagenet' if init else 'scratch', epochs=1)
    record.info['data'] |= dict(classes=['a', 'b'], mean=[.5]*3, std=[.5]*3)
    record.info['init'] = whose
    write_record(record, create_model(name, 2, size=32).state_dict(), tmp_path)
    out = tmp_path/'out'
    out.mkdir()
    write_model(record, out)
    text = (out/'config.json').read_text()
    config = json.loads(text)
    assert config.get('started_from', {}).get('licence') == licence and 'apache' not in text and 'a1_in1k' not in text and '2110.00476' not in text
    if 'pretrained_cfg' in config: assert config['pretrained_cfg'].get('license') == licence and 'test_input_size' not in config['pretrained_cfg']
