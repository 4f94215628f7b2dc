// Every surface of the scene: expressions arrive blended; here the head turns about the neck.
in vec3 position;
in vec3 normal;
in vec3 template_position; // the same vertex on the template head: drawn details live there
in vec4 traits;            // lip, head weight, mouth cavity, ambient visibility
in vec2 place;              // in the maps of skin and hair
in vec2 surface;           // person: hair and beard fields (metres inside the hairline); photograph: texture coordinate

uniform mat4 view_projection;
uniform mat3 turn;
uniform vec3 shift, pivot;

out vec3 world, facing, T;
out vec4 trait;
out vec2 field, map_place;
out vec3 diffuse_light, gleam_light; // of skin: its mesh is finer than its shading

void main() {
    float head = traits.y;
    world = mix(position, turn * (position - pivot) + pivot + shift, head);
    facing = mix(normal, turn * normal, head);
    T = template_position;
    trait = traits;
    field = surface;
    map_place = place;
#if MATERIAL == 0
    illuminate(world, normalize(facing), trait.w, mix(14.0, 40.0, trait.x), vec3(0.38, 0.20, 0.14), diffuse_light, gleam_light);
#endif
    gl_Position = view_projection * vec4(world, 1);
}
