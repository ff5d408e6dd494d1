//! What is known and cannot be done yet: each is refused by its name when it would change the pictures, and
//! stands here alone, so that it is easily lifted.

use super::params::Params;
use super::read::Reader;

/// Why pictures for control networks are refused.
pub(super) const CONTROL: &str = "pictures as prompts and for control networks need networks that are not \
    there yet (ip-adapter-plus_sdxl_vit-h.bin, control-lora-canny-rank128.safetensors, \
    fooocus_xl_cpds_128.safetensors)";

/// Switches that cannot be switched on.
const SWITCHES: [(&str, &str); 9] = [
    ("black_out_nsfw", "the safety checker is another network, which is not there yet"),
    (
        "debugging_cn_preprocessor",
        "there are no control networks yet, so nothing is prepared for them",
    ),
    ("debugging_inpaint_preprocessor", "masks are not shown"),
    ("inpaint_disable_initial_latent", "the picture is always what is started from"),
    ("invert_mask_checkbox", "masks are not inverted; send an inverted one"),
    (
        "require_base64",
        "results are addresses; with async_process and stream_output off the answer is the picture",
    ),
    ("enhance_checkbox", "nothing is enhanced after it is made"),
    ("save_final_enhanced_image_only", "nothing is enhanced after it is made"),
    (
        "skipping_cn_preprocessor",
        "there are no control networks yet, so nothing is prepared for them",
    ),
];

/// Notes what is refused.
pub(super) fn check(reader: &mut Reader<'_>, params: &Params) {
    for (name, why) in SWITCHES {
        if reader.has(name) && reader.flag(name, false) {
            reader.refuse(name, why);
        }
    }
    if reader.has("save_name") && !reader.is_null("save_name") {
        reader.refuse("save_name", "files are named by the server");
    }
    pictures(reader, params);
}

/// Pictures without what says what to do with them, which would be left out unseen.
fn pictures(reader: &mut Reader<'_>, params: &Params) {
    let is_varied = params.uov_method != "Disabled";
    if is_varied && params.uov_input_image.is_empty() {
        reader.refuse("uov_input_image", "there is no picture for the uov_method");
    }
    let is_inpainted = !params.inpaint_input_image.is_empty();
    if is_varied && is_inpainted {
        reader.refuse(
            "inpaint_input_image",
            "a picture is varied, made larger or inpainted, not two of these in one request",
        );
    }
    let has_part =
        !params.inpaint_mask_image_upload.is_empty() || !params.outpaint_selections.is_empty();
    if is_inpainted && !has_part {
        let why = "what to make anew is not said; expected a mask or a side";
        reader.refuse("inpaint_mask_image_upload", why);
    }
    if !is_inpainted && has_part {
        let why = "there is no picture to make a part of anew";
        reader.refuse("inpaint_input_image", why);
    }
}
