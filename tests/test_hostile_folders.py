"Folders and tables as they really come: each is read, or refused with one message that names the fix."
import os, sys, unicodedata
import numpy as np, pytest
from PIL import Image
from imgstudy.apply import image_files
from imgstudy.cli import main
from imgstudy.core import StudyError
from imgstudy.data.content import mark_trained
from imgstudy.data.layouts import read_folder
from imgstudy.data.split import load_data, name_content
from imgstudy.data.tables import read_table
from imgstudy.runs import Run


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch): monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))


def photos(root, places='cat dog', n=6):
    "Small images in each of `places`."
    rng = np.random.default_rng(len(str(places)))
    for place in places.split():
        (root/place).mkdir(parents=True, exist_ok=True)
        for i in range(n): Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).save(root/place/f'{i}.png')
    return root


def test_what_images_have_grown_from_is_not_overwritten(tmp_path):
    run = Run(dataset=f"folder:{photos(tmp_path/'moved')}", model='lenet5')
    named = name_content(run)
    mark_trained(named.dataset, named.grown_from)
    mark_trained(named.dataset, '0123456789ab') # train --from a record of another folder
    assert name_content(run) == named


@pytest.mark.parametrize('name, data, words', [
    ('.dcm', b'\0'*128 + b'DICM' + b'\0'*64, '12 .dcm.*DICOM and RAW as 16-bit PNG'),
    ('.svg', b'<svg xmlns="http://www.w3.org/2000/svg"/>', r'12 .svg.*drawings \(SVG, PDF\) as PNG'),
    ('.png', b'\x89PNG\r\n\x1a\n', '12 .png.*copy damaged files again')])
def test_nothing_that_can_be_read(tmp_path, name, data, words):
    for path in (tmp_path/'a'/f'{c}/{i}{name}' for c in ('x', 'y') for i in range(6)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with pytest.raises(StudyError, match=f'None of the files in .*{words}'):
        load_data(Run(dataset=f"folder:{tmp_path/'a'}", max_bad=12, model='lenet5'))


@pytest.mark.skipif(sys.platform != 'linux', reason='the file system takes UTF-8 alone')
def test_a_file_name_that_is_not_utf8(tmp_path, monkeypatch):
    root = photos(tmp_path/'a')
    odd = os.fsencode(root/'cat') + b'/caf\xe9.png'
    with open(odd, 'wb') as f: f.write((root/'cat/0.png').read_bytes())
    with pytest.raises(StudyError, match=r"'cat/caf\\udce9.png' in .* is not valid text: rename"): read_folder(root)
    with pytest.raises(StudyError, match='rename the file'): image_files([root])
    for command, words in dict(train=['--model', 'lenet5'], audit=[]).items():
        monkeypatch.setattr(sys, 'argv', ['imgstudy', command, *words, f'folder:{root}'])
        with pytest.raises(SystemExit, match='not valid text: rename the file'): main()
    (root/'t.csv').write_text('file,label\n' + ''.join(f'cat/{i}.png,{i % 2}\n' for i in range(6)) + 'caf\u00e9.png,1\n')
    read_table(root/'t.csv').said[-1].encode() # the file without a row
    os.rename(odd, os.fsencode(root) + b'/caf\xe9.png') # beside the classes
    assert all(said.encode() for said in read_folder(root).said)


def test_links_and_pipes_below_a_folder_to_predict(tmp_path):
    root, store = photos(tmp_path/'a', 'cat'), photos(tmp_path/'store', 'more', n=2)
    (root/'gone.png').symlink_to('nowhere.png')
    (root/'linked').symlink_to(store/'more')
    (root/'cat/up').symlink_to(root)
    os.mkfifo(root/'cat/pipe.png')
    images, others = image_files([root, root/'cat/pipe.png'])
    assert len(images) == 8 and sum('linked/' in p for p in images) == 2
    for words in ('gone.png (a link that leads nowhere)', 'pipe.png (a pipe or device)', 'up (a link back'):
        assert any(words in p for p in others), others
    with pytest.raises(StudyError, match=r'no images in .*Found: .*pipe.png \(a pipe'): image_files([root/'cat/pipe.png'])


def test_what_file_managers_leave(tmp_path):
    root = photos(tmp_path/'a')
    for name in ('Icon\r', 'ehthumbs.db', 'Thumbs.db'): (root/'cat'/name).write_bytes(b'')
    found = read_folder(root)
    assert len(found.items) == 12 and not found.said


def test_split_and_class_in_one_name(tmp_path):
    root = photos(tmp_path/'a', 'train_cat train_dog test_cat test_dog', n=1)
    with pytest.raises(StudyError, match="hold split and class: make folders train/ and test/ .*layout='class'"):
        read_folder(root)
    assert read_folder(root, 'class').items.label.nunique() == 4
    assert read_folder(photos(tmp_path/'b', 'test_tube train_engine car', n=1)).items.label.nunique() == 3


def table(root, columns, row, name='t.csv', encoding='utf-8', end='\n'):
    text = columns + '\n' + ''.join(row(i) + end for i in range(6))
    (root/name).write_bytes(text.encode(encoding))
    return read_table(root/name)


def split(found): return [found.items.set_index('path').split[f'cat/{i}.png'] for i in range(6)]


def test_columns_that_say_split(tmp_path):
    root, kind = photos(tmp_path/'a', 'cat'), lambda i: 'ab'[i % 2]
    flag = table(root, 'file,label,is_valid', lambda i: f'cat/{i}.png,{kind(i)},{i > 3}')
    assert split(flag) == ['train']*4 + ['valid']*2
    flag = table(root, 'file,label,is_test', lambda i: f'cat/{i}.png,{kind(i)},{int(i < 2)}')
    assert split(flag) == ['test']*2 + ['train']*4
    both = table(root, 'file,label,is_valid,is_test', lambda i: f'cat/{i}.png,{kind(i)},{int(i > 3)},{int(i < 2)}')
    assert split(both) == ['test']*2 + ['train']*2 + ['valid']*2
    for column in ('dataset', 'fold'):
        said = table(root, f'file,label,{column}', lambda i: f"cat/{i}.png,{kind(i)},{'test' if i < 2 else 'train'}")
        assert split(said) == ['test']*2 + ['train']*4
    numbers = table(root, 'file,label,fold', lambda i: f'cat/{i}.png,{kind(i)},{i % 3}')
    assert split(numbers) == ['']*6 and "the column 'fold' (0, 1, 2) is not used as a split" in numbers.said
    only = table(root, 'file,is_valid', lambda i: f'cat/{i}.png,{i > 3}') # it is the class
    assert {*only.items.label} == {'True', 'False'} and split(only) == ['']*6


@pytest.mark.parametrize('encoding', ['utf-16', 'utf-8-sig', 'cp1252'])
def test_tables_of_excel(tmp_path, encoding):
    root = photos(tmp_path/'a', 'cat')
    found = table(root, 'file\tlabel', lambda i: f'cat/{i}.png\t' + ('rot' if i % 2 else 'gr\u00fcn'), encoding=encoding)
    assert {*found.items.label} == {'gr\u00fcn', 'rot'}


@pytest.mark.filterwarnings('error')
def test_a_comma_at_the_end_of_each_row(tmp_path):
    root = photos(tmp_path/'a', 'cat')
    found = table(root, 'file,label,split', lambda i: f"cat/{i}.png,{'ab'[i % 2]},{['train', 'test'][i > 3]}", end=',\n')
    assert {*found.items.label} == {'a', 'b'} and split(found) == ['train']*4 + ['test']*2


def respelt(root, change):
    "A table whose names differ from those on disk."
    names = [f'{c}/Caf\u00e9 {i}.JPG' for c in ('cat', 'dog') for i in range(3)]
    for i, n in enumerate(names):
        path = root/unicodedata.normalize('NFD', n) # as a Mac writes it
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (9, 9), (40*i, 0, 0)).save(path)
    rows = [f"{change(n)},{n[:3]}" for n in names]
    (root/'t.csv').write_text('\n'.join(['file,label', *rows]) + '\n')
    return read_table(root/'t.csv')


ways = {'composed': lambda n: n, 'lower case': str.lower, 'upper case': str.upper, 'without ending': lambda n: n[:-4].lower(), 'of Windows': lambda n: n.replace('/', '\\'),
        'by name alone, decomposed': lambda n: unicodedata.normalize('NFD', n), 'a longer path': lambda n: f'/data/photos/{n.lower()}'}


@pytest.mark.parametrize('way', ways)
def test_names_in_a_table_by_another_case_or_composition(way, tmp_path):
    found = respelt(tmp_path, ways[way])
    assert len(found.items) == 6 and {*found.items.label} == {'cat', 'dog'} and not any('without' in s for s in found.said), found.said
    assert all((tmp_path/p).is_file() for p in found.items.path)


def test_names_that_differ_by_case_alone(tmp_path):
    "The one that is written is meant; where none is, both are named."
    root = photos(tmp_path/'a', 'cat', n=2)
    (root/'cat/X.png').write_bytes((root/'cat/0.png').read_bytes())
    (root/'cat/x.png').write_bytes((root/'cat/1.png').read_bytes())
    if len(os.listdir(root/'cat')) < 4: pytest.skip('the file system ignores case')
    (root/'t.csv').write_text('file,label\nX.png,a\nx.png,b\n0.png,a\n1.png,b\n')
    assert read_table(root/'t.csv').items.set_index('path').label.to_dict() == {'cat/X.png': 'a', 'cat/x.png': 'b', 'cat/0.png': 'a', 'cat/1.png': 'b'}
    (root/'t.csv').write_text('file,label\nX.PNG,a\n0.png,a\n1.png,b\n')
    with pytest.raises(StudyError, match="'X.PNG' in .* may be cat/X.png, cat/x.png"): read_table(root/'t.csv')


def test_a_missing_file_and_the_nearest(tmp_path):
    root = photos(tmp_path/'a', 'cat dog')
    (root/'t.csv').write_text('file,label\n' + ''.join(f'{c}/{i}.png,{c}\n' for c in ('cat', 'dog') for i in range(3)) + 'cat/01.png,cat\nnothing at all,dog\n')
    assert '2 rows without a file (cat/01.png (is it 1.png?), nothing at all)' in read_table(root/'t.csv').said
    (root/'t.csv').write_text('file,label\nholiday_1.jpg,a\nholiday_2.jpg,b\n')
    (root/'holiday1.jpg').write_bytes((root/'cat/0.png').read_bytes())
    with pytest.raises(StudyError, match=r'holiday_.\.jpg \(is it holiday1.jpg\?\)'): read_table(root/'t.csv')
    with pytest.raises(StudyError, match=r'There is no table .*T2.csv. Did you mean .*t.csv\?'): load_data(Run(dataset=f'csv:{root}/T2.csv', model='lenet5'))


def test_pipes_among_the_images_of_a_training(tmp_path, capsys):
    "They are named, and never opened: that would wait for ever."
    root = photos(tmp_path/'a')
    for name in ('cat/pipe.png', 'dog/device', 'top.jpg'): os.mkfifo(root/name)
    data = load_data(Run(dataset=f'folder:{root}', model='lenet5'))
    assert len(data.items) == 12 and 'not opened, as they are pipes or devices: top.jpg, cat/pipe.png, dog/device' in capsys.readouterr().out
    (root/'t.csv').write_text('file,label\n' + ''.join(f'{c}/{i}.png,{c}\n' for c in ('cat', 'dog') for i in range(6)) + 'cat/pipe.png,cat\n')
    assert any('pipes or devices' in s and 'cat/pipe.png' in s for s in read_table(root/'t.csv').said)
    for name, dataset in {'pipe.csv': 'csv', 'pipes': 'folder'}.items():
        os.mkfifo(tmp_path/name)
        with pytest.raises(StudyError, match=f'{name} is a pipe or device'): load_data(Run(dataset=f'{dataset}:{tmp_path/name}', model='lenet5'))
