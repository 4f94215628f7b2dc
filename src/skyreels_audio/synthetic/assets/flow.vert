// The same motion as scene.vert, with each vertex's place in another frame.
in vec3 position, source, template_position;
in vec4 traits;
in vec2 surface;
uniform mat4 view_projection;
uniform mat3 turn;
uniform vec3 shift, pivot;
out vec3 T, was;
out vec2 field;
out vec4 trait;

void main() {
    T = template_position;
    was = source;
    field = surface;
    trait = traits;
    vec3 world = mix(position, turn * (position - pivot) + pivot + shift, traits.y);
    gl_Position = view_projection * vec4(world, 1);
}
