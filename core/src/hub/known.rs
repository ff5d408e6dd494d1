//! The published models that go by a name, and the names they go by.

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Task {
    /// It says what is on a picture: see [`Tagger`](crate::Tagger).
    Tag,
    /// It changes pictures as it is told.
    Edit,
}

impl Task {
    /// Its name in one word.
    pub fn name(self) -> &'static str {
        match self {
            Task::Tag => "tag",
            Task::Edit => "edit",
        }
    }

    /// What a model for it is called.
    pub(super) fn model(self) -> &'static str {
        match self {
            Task::Tag => "a tagger",
            Task::Edit => "an edit model",
        }
    }
}

/// A model on the hub.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct KnownModel {
    /// Its repository on the hub: the id under which it is loaded.
    pub id: &'static str,
    /// What it is for.
    pub task: Task,
    /// Shorter and older names of it.
    pub aliases: &'static [&'static str],
    /// Where a tagger's author measured precision and recall to be equal, if known.
    pub recommended_threshold: Option<f32>,
    /// Why it cannot be loaded, for those that cannot.
    pub unsupported: Option<&'static str>,
}

const fn tagger(
    id: &'static str,
    aliases: &'static [&'static str],
    recommended_threshold: Option<f32>,
) -> KnownModel {
    KnownModel { id, task: Task::Tag, aliases, recommended_threshold, unsupported: None }
}

const fn edit(id: &'static str, aliases: &'static [&'static str]) -> KnownModel {
    KnownModel { id, task: Task::Edit, aliases, recommended_threshold: None, unsupported: None }
}

/// Every known model.
pub static KNOWN_MODELS: &[KnownModel] = &[
    tagger(
        "SmilingWolf/wd-vit-tagger-v3",
        &["wd-vit-tagger-v3", "wd-vit-v3", "wd14-vit-v3"],
        Some(0.2614),
    ),
    tagger(
        "SmilingWolf/wd-swinv2-tagger-v3",
        &["wd-swinv2-tagger-v3", "wd-swinv2-v3", "wd14-swinv2-v3"],
        Some(0.2653),
    ),
    tagger(
        "SmilingWolf/wd-convnext-tagger-v3",
        &["wd-convnext-tagger-v3", "wd-convnext-v3", "wd14-convnext-v3"],
        Some(0.2682),
    ),
    tagger(
        "SmilingWolf/wd-vit-large-tagger-v3",
        &["wd-vit-large-tagger-v3", "wd-vit-large-v3"],
        Some(0.2606),
    ),
    tagger(
        "SmilingWolf/wd-eva02-large-tagger-v3",
        &["wd-eva02-large-tagger-v3", "wd-eva02-large-v3"],
        Some(0.5296),
    ),
    tagger(
        "SmilingWolf/wd-v1-4-swinv2-tagger-v2",
        &[
            "wd-v1-4-swinv2-tagger-v2",
            "wd14-swinv2-v2",
            "wd14-swinv2-v2-git",
            "wd14-swinv2-v1",
            "wd14-swinv2.v2",
        ],
        Some(0.3771),
    ),
    tagger(
        "SmilingWolf/wd-v1-4-vit-tagger-v2",
        &["wd-v1-4-vit-tagger-v2", "wd14-vit-v2", "wd14-vit-v2-git", "wd14-vit.v2"],
        Some(0.3537),
    ),
    tagger(
        "SmilingWolf/wd-v1-4-convnext-tagger-v2",
        &[
            "wd-v1-4-convnext-tagger-v2",
            "wd14-convnext-v2",
            "wd14-convnext-v2-git",
            "wd14-convnext.v2",
        ],
        Some(0.3685),
    ),
    tagger(
        "SmilingWolf/wd-v1-4-convnextv2-tagger-v2",
        &[
            "wd-v1-4-convnextv2-tagger-v2",
            "wd14-convnextv2-v2",
            "wd14-convnextv2-v2-git",
            "wd14-convnextv2.v1",
            "wd14-convnextv2.v2",
        ],
        Some(0.3710),
    ),
    KnownModel {
        id: "SmilingWolf/wd-v1-4-moat-tagger-v2",
        task: Task::Tag,
        aliases: &[
            "wd-v1-4-moat-tagger-v2",
            "wd-v1-4-moat-tagger.v2",
            "wd14-moat-v2",
            "wd14-moat.v2",
        ],
        recommended_threshold: Some(0.3771),
        unsupported: Some("MOAT networks are not supported yet"),
    },
    tagger(
        "deepghs/idolsankaku-eva02-large-tagger-v1",
        &["idolsankaku-eva02-large-tagger-v1"],
        Some(0.4985),
    ),
    tagger("deepghs/idolsankaku-swinv2-tagger-v1", &["idolsankaku-swinv2-tagger-v1"], None),
    edit("Qwen/Qwen-Image-Edit-2511", &["qwen-image-edit-2511"]),
    edit("Qwen/Qwen-Image-Edit-2509", &["qwen-image-edit-2509"]),
    edit("Qwen/Qwen-Image-Edit", &["qwen-image-edit"]),
];

/// The known model of this id or alias; case does not matter.
pub fn find_known(name: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| {
        model.id.eq_ignore_ascii_case(name)
            || model.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found_in_any_case() {
        let names: Vec<_> =
            KNOWN_MODELS.iter().flat_map(|m| m.aliases.iter().chain([&m.id])).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        // The name that the API document uses.
        assert_eq!(find_known("wd14-vit-v2").unwrap().id, "SmilingWolf/wd-v1-4-vit-tagger-v2");
        assert!(find_known("WD14-VIT.V2").is_some());
        assert!(find_known("wd15-vit").is_none());
        let edit = find_known("qwen/qwen-image-edit-2511").unwrap();
        assert_eq!((edit.id, edit.task), ("Qwen/Qwen-Image-Edit-2511", Task::Edit));
        assert_eq!(find_known("qwen-image-edit-2509").unwrap().id, "Qwen/Qwen-Image-Edit-2509");
    }
}
