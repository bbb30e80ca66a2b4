"Several labels in one value of a table, whatever writes them; workbooks, columns of one name, and a DataFrame's index."
import numpy as np, pandas as pd, pytest
from PIL import Image
from imgstudy.core import StudyError
from imgstudy.data.tables import read_table, table_dataset


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path/'img').mkdir()
    for i in range(20): Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(tmp_path/f'img/{i}.png')
    return tmp_path


def table(root, label, head='image,label'):
    (root/'t.csv').write_text(head + '\n' + ''.join(f'{i},{label(i)}\n' for i in range(20)))
    return root/'t.csv'


ab = lambda i: 'ab'[i % 2]


@pytest.mark.parametrize('label', [lambda i: f'''"['a','{ab(i)}']"''', lambda i: f'"(a, {ab(i)})"', lambda i: f'"{{x, {ab(i)}}}"'], ids=['list', 'tuple', 'set'])
def test_lists_are_several_labels(label, root):
    with pytest.raises(StudyError, match='that is multi-label'): read_table(table(root, label))


@pytest.mark.parametrize('one', ['a+b', 'a & b', 'a/b', 'b and a'])
def test_what_may_be_a_class_is_said(one, root):
    found = read_table(table(root, lambda i: one if i % 3 == 0 else ab(i)))
    assert f"'{one}' may be several labels in one value, and is read as a class" in '; '.join(found.said)


def test_tags_in_one_value_are_said(root):
    tags = ['clear primary', 'clear primary water', 'haze primary', 'haze water']
    assert "'clear primary', 'clear primary water'" in '; '.join(read_table(table(root, lambda i: tags[i % 4])).said)


@pytest.mark.parametrize('classes', [['great dane', 'great tit', 'dane'], ['n/a', 'b'], ['black', 'white', 'salt and pepper'], ['red apple', 'green apple', 'red pear']])
def test_names_of_several_words_are_names(classes, root):
    assert 'several labels' not in '; '.join(read_table(table(root, lambda i: classes[i % len(classes)])).said)


def test_columns_of_one_name(root):
    path = table(root, lambda i: f'{ab(i)},{ab(i + 1)}', 'image,label,label')
    with pytest.raises(StudyError, match="several columns called 'label'.*label, label.1"): read_table(path)
    assert read_table(path, label_col='label.1').items.set_index('path').label['img/0.png'] == 'b'


@pytest.mark.parametrize('data, words', [(b'PK\3\4' + bytes(90), 'a workbook'), (b'\xd0\xcf\x11\xe0' + bytes(90), 'a workbook'), (b'PAR1\xff' + bytes(90), 'holds no text')])
def test_what_is_no_table(data, words, root):
    (root/'t.xlsx').write_bytes(data)
    with pytest.raises(StudyError, match=words): read_table(root/'t.xlsx')


def test_a_data_frame_with_its_images_as_index_and_one_without_files(root, monkeypatch, tmp_path):
    monkeypatch.setenv('IMGSTUDY_CACHE', str(tmp_path/'cache'))
    frame = pd.DataFrame(dict(label=[ab(i) for i in range(20)]), index=[f'img/{i}.png' for i in range(20)])
    for index in (frame, frame.rename_axis('image')):
        assert len(read_table(table_dataset(index, root).partition(':')[2]).items) == 20
    with pytest.raises(StudyError, match='give full paths, or say what they are relative to'): table_dataset(frame, root/'img')
