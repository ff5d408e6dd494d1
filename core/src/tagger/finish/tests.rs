use proptest::prelude::*;

use super::*;
use crate::weights::ModelDir;

const CSV: &str = "name,category,best_threshold\n\
    general,9,\nsensitive,9,\n\
    1girl,0,0.4\nlong_hair,0,0.5\nvery_long_hair,0,\nhair,0,\n>_<,0,\n\
    hatsune_miku,4,0.9\nrin_(vocaloid),4,\n";

fn labels() -> Labels {
    static FILES: &[(&str, &[u8])] = &[("selected_tags.csv", CSV.as_bytes())];
    Labels::load(&ModelDir::Embedded(FILES)).unwrap()
}

const SCORES: [f32; 9] = [0.8, 0.1, 0.45, 0.9, 0.6, 0.5, 0.36, 0.86, 0.35];

fn names(options: &TagOptions) -> (Vec<String>, Vec<String>) {
    let labels = labels();
    let tags = Selection::new(&labels, options).unwrap().apply(&SCORES);
    assert_eq!(tags.ratings.len(), 2, "ratings are always all kept");
    let names = |list: &[Tag]| list.iter().map(|tag| tag.name.to_string()).collect();
    (names(&tags.characters), names(&tags.tags))
}

fn tags(options: &TagOptions) -> Vec<String> {
    names(options).1
}

#[test]
fn thresholds_are_strict_and_the_nearest_one_counts() {
    let options = TagOptions::default();
    // 0.35 is not greater than 0.35.
    assert_eq!(names(&options).0, ["hatsune_miku"]);
    assert_eq!(tags(&options), ["1girl", "long_hair", "very_long_hair", "hair", ">_<"]);
    let options = options.character_threshold(0.87).threshold(0.55);
    assert_eq!(names(&options), (vec![], vec!["long_hair".into(), "very_long_hair".into()]));
    let options = options.tag_threshold("Hatsune Miku", 0.1).tag_threshold("hair", 0.4);
    assert_eq!(names(&options).0, ["hatsune_miku"]);
    assert_eq!(tags(&options), ["long_hair", "very_long_hair", "hair"]);
    let options = TagOptions::default().threshold(0.7).best_thresholds(true);
    assert_eq!(names(&options), (vec![], vec!["1girl".into(), "long_hair".into()]));
}

#[test]
fn mcut_takes_the_largest_gap() {
    assert_eq!(mcut(vec![0.1, 0.9, 0.8, 0.2]), Some(0.5));
    assert_eq!(mcut(vec![0.5]), None);
    assert_eq!(mcut(vec![]), None);
    let options = TagOptions::default().mcut(true);
    assert_eq!(names(&options), (vec!["hatsune_miku".into()], vec!["long_hair".into()]));
}

#[test]
fn selection_and_order() {
    let options = TagOptions::default();
    assert_eq!(tags(&options.clone().top_k(2)), ["long_hair", "very_long_hair"]);
    assert_eq!(
        tags(&options.clone().exclude(["Long Hair", ">_<"])),
        ["1girl", "very_long_hair", "hair"]
    );
    assert_eq!(tags(&options.clone().drop_redundant(true)), ["1girl", "very_long_hair", ">_<"]);
    let implied = vec![("very long hair".to_owned(), "1girl".to_owned())];
    let options_implied = options.clone().drop_redundant(true).implications(implied);
    assert_eq!(tags(&options_implied), ["very_long_hair", ">_<"]);
    let by_score = options.clone().order(Order::Score);
    assert_eq!(tags(&by_score), ["long_hair", "very_long_hair", "hair", "1girl", ">_<"]);
    let by_name = options.order(Order::Name);
    assert_eq!(tags(&by_name), ["1girl", ">_<", "hair", "long_hair", "very_long_hair"]);
}

#[test]
fn values_that_mean_nothing_are_refused_by_name() {
    let labels = labels();
    let error = |options: TagOptions| Selection::new(&labels, &options).err().unwrap().to_string();
    assert!(error(TagOptions::default().threshold(f32::NAN)).contains("field=threshold"));
    assert!(error(TagOptions::default().character_threshold(-0.1)).contains("for=4"));
    assert!(error(TagOptions::default().tag_threshold("solo", 0.1)).contains("`solo`"));
    // More than 1 switches a category off.
    assert!(names(&TagOptions::default().character_threshold(2.0)).0.is_empty());
}

proptest! {
    #[test]
    fn a_higher_threshold_never_adds_tags(
        scores in prop::collection::vec(0f32..1.0, 9),
        low in 0f32..1.0,
        rise in 0f32..1.0,
    ) {
        let labels = labels();
        let at = |threshold: f32| {
            let options = TagOptions::default().threshold(threshold);
            let tags = Selection::new(&labels, &options).unwrap().apply(&scores);
            tags.characters.iter().chain(&tags.tags).map(|tag| tag.index).collect::<Vec<_>>()
        };
        let (many, few) = (at(low), at(low + rise));
        prop_assert!(few.iter().all(|index| many.contains(index)));
    }

    #[test]
    fn top_k_keeps_the_most_probable(
        scores in prop::collection::vec(0f32..1.0, 9),
        k in 0usize..6,
    ) {
        let labels = labels();
        let options = TagOptions::default().threshold(0.0);
        let all = Selection::new(&labels, &options).unwrap().apply(&scores).tags;
        let options = options.top_k(k);
        let top = Selection::new(&labels, &options).unwrap().apply(&scores).tags;
        prop_assert_eq!(top.len(), k.min(all.len()));
        let worst = top.iter().map(|tag| tag.score).fold(1.0, f32::min);
        let dropped = all.iter().filter(|tag| !top.iter().any(|kept| kept.index == tag.index));
        prop_assert!(dropped.clone().all(|tag| tag.score <= worst));
    }
}
