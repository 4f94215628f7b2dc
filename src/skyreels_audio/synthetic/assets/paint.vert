in vec3 template_position;
in vec4 traits;
in vec2 surface;
in vec2 place; // in the map
out vec3 T;
out vec4 trait;
out vec2 field;
void main() {
    T = template_position;
    trait = traits;
    field = surface;
    gl_Position = vec4(2.0 * place - 1.0, 0, 1);
}
